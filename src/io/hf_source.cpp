#include "io/hf_source.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/parallel.h"
#include "base/printable.h"
#include "io/hf_config.h"
#include "io/model_tensors.h"
#include "io/text_files.h"
#include "io/widen.h"

namespace atom {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kValuesPerTask = 1 << 16;

}  // namespace

Result<std::unique_ptr<ModelSource>> HfSource::create(const fs::path& folder) {
  std::unique_ptr<HfSource> source(new HfSource());
  source->origin_ = folder.string();
  const fs::path config_path = folder / "config.json";
  Json document = ATOM_TRY(read_json_file(config_path));
  source->config_ = ATOM_TRY(parse_hf_config(document, config_path.string()));
  if (document.contains("quantization_config") && !document["quantization_config"].is_null()) {
    return error(ErrorCode::kUnsupported,
                 "{}: quantization_config: the model is quantized already; its unquantized "
                 "original is needed here",
                 config_path.string());
  }
  const fs::path generation_path = folder / "generation_config.json";
  std::error_code ec;
  if (fs::exists(generation_path, ec)) {
    const Json generation = ATOM_TRY(read_json_file(generation_path));
    ATOM_TRY(add_generation_config(generation, generation_path.string(), source->config_));
    if (!source->config_.eos_ids.empty()) document["eos_token_id"] = source->config_.eos_ids;
  }
  source->config_json_ = document.dump(2);
  source->tensors_ = ATOM_TRY(SafetensorsFolder::open(folder));
  std::vector<TensorSpec> found;
  for (const auto& [name, entry] : source->tensors_.entries()) {
    found.push_back({name, entry.tensor->shape});
  }
  ATOM_TRY(check_model_tensors(source->config_, found, source->origin_));
  for (const TensorSpec& tensor : model_tensors(source->config_)) {
    const SafetensorsFolder::Entry entry = ATOM_TRY(source->tensors_.find(tensor.name));
    if (find_widen(entry.tensor->dtype) == nullptr) {
      return error(ErrorCode::kUnsupported,
                   "{}: tensor '{}': dtype {} is not supported for weights (F64, F32, F16 and BF16 "
                   "are)",
                   entry.file->origin(), tensor.name, entry.tensor->dtype);
    }
  }
  return std::unique_ptr<ModelSource>(std::move(source));
}

Result<TextAssets> HfSource::text_assets() const { return read_text_files(origin_); }

Result<std::vector<int64_t>> HfSource::shape(std::string_view name) const {
  return ATOM_TRY(tensors_.find(name)).tensor->shape;
}

Result<std::string> HfSource::stored_type(std::string_view name) const {
  return ATOM_TRY(tensors_.find(name)).tensor->dtype;
}

Status HfSource::read(std::string_view name, std::span<float> out) const {
  const auto [file, tensor] = ATOM_TRY(tensors_.find(name));
  const int64_t elements = tensor->elements();
  if (static_cast<int64_t>(out.size()) != elements) {
    return error(ErrorCode::kInvalidArgument, "{}: tensor '{}': {} values, not {}", file->origin(),
                 printable(name), elements, out.size());
  }
  const Widen widen = find_widen(tensor->dtype);
  if (widen == nullptr) {
    return error(ErrorCode::kUnsupported, "{}: tensor '{}': dtype {} does not read as float",
                 file->origin(), printable(name), tensor->dtype);
  }
  const auto* bytes = reinterpret_cast<const uint8_t*>(tensor->bytes.data());
  const int64_t size = elements > 0 ? static_cast<int64_t>(tensor->bytes.size()) / elements : 0;
  parallel_for((elements + kValuesPerTask - 1) / kValuesPerTask, [&](int64_t task) {
    const int64_t begin = task * kValuesPerTask;
    widen(bytes + begin * size, std::min(kValuesPerTask, elements - begin), out.data() + begin);
  });
  file->release(*tensor);
  return {};
}

}  // namespace atom
