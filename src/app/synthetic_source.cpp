#include "app/synthetic_source.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "app/synthetic_model.h"
#include "base/parallel.h"
#include "base/random.h"
#include "io/hf_config.h"
#include "text/unicode.h"

namespace atom {
namespace {

constexpr int64_t kOutlierEvery = 100;
constexpr float kOutlierSize = 20.0f;

bool is_outlier(int64_t channel) { return channel % kOutlierEvery == kOutlierEvery / 2; }

// About normal with variance 1, from one step of the generator: four 16-bit uniforms, summed.
float quick_normal(uint64_t bits) {
  const auto part = [bits](int i) { return static_cast<float>(bits >> (16 * i) & 0xffffu); };
  constexpr float kMean = 2.0f * 65535.0f;
  constexpr float kScale = 1.7320508f / 65536.0f;  // 1 / (65536 sqrt(4 / 12))
  return (part(0) + part(1) + part(2) + part(3) - kMean) * kScale;
}

// A tokenizer.json with a token for each byte and no more.
std::string byte_tokenizer() {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) {
    std::string token;
    append_utf8(token, byte_to_char(static_cast<uint8_t>(byte)));
    vocab[token] = byte;
  }
  const nlohmann::json bytes = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  return nlohmann::json{
      {"pre_tokenizer", bytes},
      {"decoder", bytes},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}}
      .dump();
}

class SyntheticSource : public ModelSource {
 public:
  SyntheticSource(std::string_view shape, ModelConfig config)
      : config_(std::move(config)), origin_(fmt::format("shape {}", shape)) {
    for (TensorSpec& tensor : model_tensors(config_)) {
      shapes_.emplace_back(std::move(tensor.name), std::move(tensor.shape));
    }
    std::sort(shapes_.begin(), shapes_.end());
  }

  const ModelConfig& config() const override { return config_; }
  const std::string& origin() const override { return origin_; }
  std::string config_json() const override { return hf_config_json(config_).dump(2); }
  Result<TextAssets> text_assets() const override {
    TextAssets assets;
    assets.tokenizer_json = byte_tokenizer();
    return assets;
  }
  bool has(std::string_view name) const override { return find(name) != nullptr; }
  Result<std::string> stored_type(std::string_view) const override { return std::string("F32"); }

  Result<std::vector<int64_t>> shape(std::string_view name) const override {
    const std::vector<int64_t>* shape = find(name);
    if (shape == nullptr) return missing(name);
    return *shape;
  }

  Status read(std::string_view name, std::span<float> out) const override {
    const std::vector<int64_t>* shape = find(name);
    if (shape == nullptr) return missing(name);
    const int64_t rows = shape->size() == 2 ? (*shape)[0] : 1;
    const int64_t cols = shape->back();
    if (std::ssize(out) != rows * cols) {
      return error(ErrorCode::kInvalidArgument, "{}: tensor '{}': {} elements, not {}", origin_,
                   name, rows * cols, out.size());
    }
    if (shape->size() == 1) {
      for (int64_t k = 0; k < cols; ++k) {
        const bool norm_of_layer = name.find("layernorm") != std::string_view::npos;
        out[static_cast<size_t>(k)] = norm_of_layer && is_outlier(k) ? kOutlierSize : 1.0f;
      }
      return {};
    }
    const bool large_rows = name.find("v_proj") != std::string_view::npos ||
                            name.find("up_proj") != std::string_view::npos;
    const uint64_t seed = std::hash<std::string_view>()(name);
    const float size = name.find("embed") != std::string_view::npos
                           ? 1.0f
                           : 1.0f / std::sqrt(static_cast<float>(cols));
    parallel_for(rows, [&](int64_t n) {
      Random random(seed + static_cast<uint64_t>(n) * 0x9e3779b97f4a7c15u * 65536);
      const float scale = large_rows && is_outlier(n) ? kOutlierSize * size : size;
      float* row = out.data() + n * cols;
      for (int64_t k = 0; k < cols; ++k) row[k] = scale * quick_normal(random.next());
    });
    return {};
  }

 private:
  const std::vector<int64_t>* find(std::string_view name) const {
    const auto at = std::lower_bound(
        shapes_.begin(), shapes_.end(), name,
        [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
    return at != shapes_.end() && at->first == name ? &at->second : nullptr;
  }
  Status missing(std::string_view name) const {
    return error(ErrorCode::kNotFound, "{}: tensor '{}': not there", origin_, name);
  }

  ModelConfig config_;
  std::string origin_;
  std::vector<std::pair<std::string, std::vector<int64_t>>> shapes_;
};

}  // namespace

Result<std::unique_ptr<ModelSource>> make_synthetic_source(std::string_view shape, int64_t layers) {
  ModelConfig config = ATOM_TRY(synthetic_config(shape, layers));
  config.bos_id = 1;
  return std::unique_ptr<ModelSource>(new SyntheticSource(shape, std::move(config)));
}

}  // namespace atom
