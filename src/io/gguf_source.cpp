#include "io/gguf_source.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/parallel.h"
#include "base/printable.h"
#include "io/gguf_config.h"
#include "io/hf_config.h"
#include "io/model_tensors.h"

namespace atom {
namespace {

constexpr int64_t kValuesPerTask = 1 << 16;

// Where Hugging Face has the row of a head that a llama GGUF file keeps at `row`: the file puts the
// two channels that rotate together side by side, Hugging Face half a head apart.
int64_t unpermuted_row(int64_t row, int64_t head_dim) {
  const int64_t head = row / head_dim, i = row % head_dim;
  return head * head_dim + (i % 2) * (head_dim / 2) + i / 2;
}

}  // namespace

Result<std::unique_ptr<ModelSource>> GgufSource::create(GgufFile file) {
  std::unique_ptr<GgufSource> source(new GgufSource(std::move(file)));
  source->config_ = ATOM_TRY(gguf_model_config(source->file_));
  source->interleaved_ = ATOM_TRY(source->file_.get_string("general.architecture")) == "llama";
  ATOM_TRY(source->map_names());
  ATOM_TRY(source->check_tensors());
  return std::unique_ptr<ModelSource>(std::move(source));
}

Status GgufSource::map_names() {
  for (const auto& [name, tensor] : file_.tensors()) {
    if (name == kGgufRopeFactors) continue;  // part of the configuration
    const std::vector<std::string> known = hugging_face_names(name, config_.experts);
    if (known.empty()) {
      return error(ErrorCode::kUnsupported, "{}: tensor '{}': not known in a {} model", origin(),
                   printable(name), family_name(config_.family));
    }
    Place place{&tensor, tensor.shape};
    if (name.find("_exps.") != std::string::npos) {
      const auto count = static_cast<int64_t>(known.size());
      if (tensor.shape.size() != 3 || tensor.shape[0] != count) {
        return error(ErrorCode::kCorrupt, "{}: tensor '{}': shape {} is not that of {} experts",
                     origin(), name, shape_text(tensor.shape), count);
      }
      place.shape.erase(place.shape.begin());
    }
    for (const std::string& own_name : known) {
      if (!tensors_.emplace(own_name, place).second) {
        return error(ErrorCode::kCorrupt, "{}: tensor '{}' stands there twice", origin(), own_name);
      }
      place.first_row += place.shape[0];
    }
  }
  return {};
}

Status GgufSource::check_tensors() const {
  std::vector<TensorSpec> found;
  for (const auto& [name, place] : tensors_) found.push_back({name, place.shape});
  return check_model_tensors(config_, found, origin());
}

Result<const GgufSource::Place*> GgufSource::find(std::string_view name) const {
  const auto it = tensors_.find(name);
  if (it != tensors_.end()) return &it->second;
  return error(ErrorCode::kNotFound, "{}: tensor '{}' is missing", origin(), name);
}

std::string GgufSource::config_json() const { return hf_config_json(config_).dump(2); }

Result<TextAssets> GgufSource::text_assets() const { return gguf_text_assets(file_); }

bool GgufSource::has(std::string_view name) const { return tensors_.find(name) != tensors_.end(); }

Result<std::vector<int64_t>> GgufSource::shape(std::string_view name) const {
  return ATOM_TRY(find(name))->shape;
}

Result<std::string> GgufSource::stored_type(std::string_view name) const {
  return std::string(ATOM_TRY(find(name))->tensor->type->name);
}

bool GgufSource::is_permuted(std::string_view name) const {
  return interleaved_ && (name.find(".self_attn.q_proj.") != std::string_view::npos ||
                          name.find(".self_attn.k_proj.") != std::string_view::npos);
}

Status GgufSource::read(std::string_view name, std::span<float> out) const {
  const Place& place = *ATOM_TRY(find(name));
  const GgufTensor& tensor = *place.tensor;
  int64_t elements = 1;
  for (const int64_t size : place.shape) elements *= size;
  if (static_cast<int64_t>(out.size()) != elements) {
    return error(ErrorCode::kInvalidArgument, "{}: tensor '{}': {} values, not {}", origin(), name,
                 elements, out.size());
  }
  const bool permuted = is_permuted(name);
  if (permuted && tensor.shape.size() == 1) {  // a bias moves as the rows do
    std::vector<float> values(out.size());
    GgufFile::decode_rows(tensor, 0, 1, values.data());
    for (int64_t row = 0; row < elements; ++row) {
      out[static_cast<size_t>(unpermuted_row(row, config_.head_dim))] =
          values[static_cast<size_t>(row)];
    }
    return {};
  }
  const int64_t row_values = place.shape.back(), rows = elements / row_values;
  const int64_t step = std::max<int64_t>(1, kValuesPerTask / row_values);
  parallel_for((rows + step - 1) / step, [&](int64_t task) {
    const int64_t begin = task * step, end = std::min(rows, begin + step);
    if (!permuted) {
      GgufFile::decode_rows(tensor, place.first_row + begin, end - begin,
                            out.data() + begin * row_values);
      return;
    }
    for (int64_t row = begin; row < end; ++row) {
      const int64_t to = unpermuted_row(row, config_.head_dim);
      GgufFile::decode_rows(tensor, row, 1, out.data() + to * row_values);
    }
  });
  file_.release(tensor);
  return {};
}

}  // namespace atom
