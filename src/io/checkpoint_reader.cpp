#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/parallel.h"
#include "base/printable.h"
#include "io/checkpoint.h"
#include "io/format_json.h"
#include "io/hf_config.h"
#include "io/packed_parts.h"
#include "io/text_files.h"

namespace atom {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kVersion = 1;
constexpr size_t kMaxConfig = 64u << 20;
constexpr int64_t kMaxPrefix = 4096;
constexpr const char* kMethod = "atom";

// Several threads copy, for each waits for the file's pages to be mapped.
template <class T>
Status copy_into(const SafetensorsFolder::Entry& entry, std::vector<T>& array) {
  constexpr size_t kChunk = 256 << 10;
  const std::span<const std::byte> bytes = entry.tensor->bytes;
  array.resize(bytes.size() / sizeof(T));
  auto* const to = reinterpret_cast<std::byte*>(array.data());
  parallel_for(static_cast<int64_t>((bytes.size() + kChunk - 1) / kChunk), [&](int64_t i) {
    const size_t begin = static_cast<size_t>(i) * kChunk;
    std::memcpy(to + begin, bytes.data() + begin, std::min(kChunk, bytes.size() - begin));
  });
  entry.file->release(*entry.tensor);
  return {};
}

}  // namespace

bool Checkpoint::is_checkpoint(const fs::path& path) {
  std::error_code ec;
  if (!fs::is_regular_file(path / "config.json", ec)) return false;
  const Result<Json> document = read_json_file(path / "config.json", kMaxConfig);
  if (!document.ok()) return false;
  const JsonView view(*document, "");
  if (!view.has("quantization_config")) return false;
  const Result<std::string> method =
      view.at("quantization_config").value().get_string("quant_method");
  return method.ok() && *method == kMethod;
}

Result<Checkpoint> Checkpoint::open(const fs::path& folder) {
  const std::string config = ATOM_TRY(read_text_file(folder / "config.json", kMaxConfig));
  return from_parts(config, ATOM_TRY(SafetensorsFolder::open(folder)), folder.string());
}

Result<Checkpoint> Checkpoint::from_parts(std::string_view config_json, SafetensorsFolder tensors,
                                          const std::string& origin) {
  Checkpoint checkpoint;
  checkpoint.origin_ = origin;
  checkpoint.config_origin_ = (fs::path(origin) / "config.json").string();
  checkpoint.tensors_ = std::move(tensors);
  ATOM_TRY(checkpoint.parse_config(config_json));
  ATOM_TRY(checkpoint.check_tensors());
  return checkpoint;
}

Status Checkpoint::parse_config(std::string_view config_json) {
  Json document = ATOM_TRY(parse_json(config_json, config_origin_));
  const JsonView root(document, config_origin_);
  const JsonView view = ATOM_TRY(root.at("quantization_config"));
  const std::string method = ATOM_TRY(view.get_string("quant_method"));
  if (method != kMethod) {
    return error(ErrorCode::kUnsupported, "{}: quant_method: '{}' is not an Atom checkpoint's",
                 view.place(), printable(method));
  }
  const int64_t version = ATOM_TRY(view.get_int("version", 0, INT32_MAX));
  if (version != kVersion) {
    return error(ErrorCode::kUnsupported, "{}: version: {} is not supported ({} is)", view.place(),
                 version, kVersion);
  }
  ATOM_TRY(
      view.expect_keys({"quant_method", "version", "recipe", "formats", "kv", "prefix_tokens"}));
  meta_.config = ATOM_TRY(parse_hf_config(document, config_origin_));
  meta_.kv = ATOM_TRY(kv_format_from_json(ATOM_TRY(view.at("kv"))));
  ATOM_TRY(validate(meta_.kv, meta_.config.head_dim).with_context(config_origin_));
  const JsonView prefix = ATOM_TRY(view.at("prefix_tokens"));
  if (!prefix.is_array() || static_cast<int64_t>(prefix.size()) > kMaxPrefix) {
    return error(ErrorCode::kCorrupt, "{}: expected an array of at most {} tokens", prefix.place(),
                 kMaxPrefix);
  }
  for (size_t i = 0; i < prefix.size(); ++i) {
    meta_.prefix_tokens.push_back(
        static_cast<int32_t>(ATOM_TRY(ATOM_TRY(prefix.at(i)).as_int(0, meta_.config.vocab - 1))));
  }
  const JsonView recipe = ATOM_TRY(view.at("recipe"));
  if (!recipe.is_object()) {
    return error(ErrorCode::kCorrupt, "{}: expected an object", recipe.place());
  }
  meta_.recipe_json = recipe.json().dump();
  const JsonView formats = ATOM_TRY(view.at("formats"));
  for (const std::string& name : formats.keys()) {
    formats_.emplace(name, ATOM_TRY(linear_format_from_json(ATOM_TRY(formats.at(name)))));
  }
  document.erase("quantization_config");
  meta_.config_json = document.dump(2);
  return {};
}

Result<SafetensorsFolder::Entry> Checkpoint::find(std::string_view name, DType dtype,
                                                  const std::vector<int64_t>& shape) const {
  const SafetensorsFolder::Entry entry = ATOM_TRY(tensors_.find(name));
  if (entry.tensor->dtype != dtype_name(dtype)) {
    return error(ErrorCode::kCorrupt, "{}: tensor '{}': dtype {}, expected {}",
                 entry.file->origin(), name, entry.tensor->dtype, dtype_name(dtype));
  }
  if (entry.tensor->shape != shape) {
    return error(ErrorCode::kCorrupt, "{}: tensor '{}': shape {}, expected {}",
                 entry.file->origin(), name, shape_text(entry.tensor->shape), shape_text(shape));
  }
  return entry;
}

Status Checkpoint::check_tensors() {
  std::map<std::string_view, bool> unused;
  for (const auto& [name, entry] : tensors_.entries()) unused.emplace(name, true);
  for (const TensorSpec& tensor : checkpoint_floats(meta_)) {
    ATOM_TRY(find(tensor.name, DType::kF32, tensor.shape));
    unused.erase(tensor.name);
  }
  for (const TensorSpec& perm : checkpoint_perms(meta_.config)) {
    ATOM_TRY(find(perm.name, DType::kI32, perm.shape));
    unused.erase(perm.name);
  }
  for (const LinearSpec& spec : checkpoint_linears(meta_.config)) {
    const auto format = formats_.find(spec.name);
    if (format == formats_.end()) {
      return error(ErrorCode::kNotFound, "{}: quantization_config.formats: '{}' is missing",
                   config_origin_, spec.name);
    }
    ATOM_TRY(validate(format->second, spec.cols)
                 .with_context(
                     fmt::format("{}: quantization_config.formats.{}", config_origin_, spec.name)));
    PackedLinear expected;
    expected.format = format->second;
    expected.rows = spec.rows;
    expected.cols = spec.cols;
    CheckpointLinear linear{spec.name, format->second, spec.rows, spec.cols, 0};
    const auto check = [&](const char* suffix, DType dtype, const std::vector<int64_t>& shape,
                           const auto&) -> Status {
      const std::string name = fmt::format("{}.{}", spec.name, suffix);
      linear.bytes += static_cast<int64_t>(ATOM_TRY(find(name, dtype, shape)).tensor->bytes.size());
      unused.erase(name);
      return {};
    };
    ATOM_TRY(for_each_part(expected, check));
    if (spec.bias || tensors_.has(spec.name + ".bias")) {
      ATOM_TRY(check("bias", DType::kF32, {spec.rows}, expected.bias));
    }
    linears_.push_back(std::move(linear));
  }
  if (!unused.empty()) {
    return error(ErrorCode::kCorrupt, "{}: tensor '{}' has no place in this model", origin_,
                 printable(unused.begin()->first));
  }
  if (formats_.size() != linears_.size()) {
    return error(ErrorCode::kCorrupt, "{}: quantization_config.formats: {} entries for {} linears",
                 config_origin_, formats_.size(), linears_.size());
  }
  return {};
}

int64_t Checkpoint::total_bytes() const {
  int64_t total = 0;
  for (const auto& [name, entry] : tensors_.entries()) {
    total += static_cast<int64_t>(entry.tensor->bytes.size());
  }
  return total;
}

const CheckpointLinear* Checkpoint::find_linear(std::string_view name) const {
  for (const CheckpointLinear& linear : linears_) {
    if (linear.name == name) return &linear;
  }
  return nullptr;
}

Result<PackedLinear> Checkpoint::linear(std::string_view name, PackedLinear room) const {
  const CheckpointLinear* found = find_linear(name);
  if (found == nullptr) {
    return error(ErrorCode::kNotFound, "{}: no linear '{}'", origin_, printable(name));
  }
  PackedLinear linear;
  if (room.format == found->format && room.rows == found->rows && room.cols == found->cols) {
    linear = std::move(room);
  }
  linear.format = found->format;
  linear.rows = found->rows;
  linear.cols = found->cols;
  const auto read = [&](const char* suffix, DType dtype, const std::vector<int64_t>& shape,
                        auto& array) -> Status {
    return copy_into(ATOM_TRY(find(fmt::format("{}.{}", name, suffix), dtype, shape)), array);
  };
  ATOM_TRY(for_each_part(linear, read));
  if (tensors_.has(fmt::format("{}.bias", name))) {
    ATOM_TRY(read("bias", DType::kF32, {linear.rows}, linear.bias));
  } else {
    linear.bias.clear();
  }
  ATOM_TRY(validate(linear).with_context(fmt::format("{}: tensor '{}'", origin_, name)));
  return linear;
}

Result<std::vector<float>> Checkpoint::floats(std::string_view name) const {
  const SafetensorsFolder::Entry entry = ATOM_TRY(tensors_.find(name));
  if (entry.tensor->dtype != dtype_name(DType::kF32)) {
    return error(ErrorCode::kCorrupt, "{}: tensor '{}': dtype {}, expected F32",
                 entry.file->origin(), printable(name), entry.tensor->dtype);
  }
  std::vector<float> values;
  ATOM_TRY(copy_into(entry, values));
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    return error(ErrorCode::kCorrupt, "{}: tensor '{}': value {} is not finite",
                 entry.file->origin(), printable(name), i);
  }
  return values;
}

Result<std::vector<int32_t>> Checkpoint::perm(std::string_view name) const {
  const SafetensorsFolder::Entry entry = ATOM_TRY(tensors_.find(name));
  if (entry.tensor->dtype != dtype_name(DType::kI32)) {
    return error(ErrorCode::kCorrupt, "{}: tensor '{}': dtype {}, expected I32",
                 entry.file->origin(), printable(name), entry.tensor->dtype);
  }
  std::vector<int32_t> perm;
  ATOM_TRY(copy_into(entry, perm));
  std::vector<bool> seen(perm.size(), false);
  for (size_t i = 0; i < perm.size(); ++i) {
    const int64_t channel = perm[i];
    if (channel < 0 || channel >= static_cast<int64_t>(perm.size())) {
      return error(ErrorCode::kCorrupt, "{}: tensor '{}': channel {} at {} is not within 0..{}",
                   entry.file->origin(), printable(name), channel, i, perm.size() - 1);
    }
    if (seen[static_cast<size_t>(channel)]) {
      return error(ErrorCode::kCorrupt, "{}: tensor '{}': channel {} stands there twice",
                   entry.file->origin(), printable(name), channel);
    }
    seen[static_cast<size_t>(channel)] = true;
  }
  return perm;
}

Result<TextAssets> Checkpoint::text_assets() const { return read_text_files(origin_); }

}  // namespace atom
