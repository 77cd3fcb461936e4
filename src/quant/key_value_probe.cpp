#include "quant/key_value_probe.h"

#include "base/blas.h"
#include "ops/numerics.h"

namespace atom {
namespace {

std::vector<float> project(const PackedLinear& linear, std::span<const float> x, int64_t tokens) {
  std::vector<float> y(static_cast<size_t>(tokens * linear.rows));
  blas::gemm(false, true, tokens, linear.rows, linear.cols, 1.0f, x.data(), linear.cols,
             linear.values.data(), linear.cols, 0.0f, y.data(), linear.rows);
  for (size_t i = 0; i < y.size() && !linear.bias.empty(); ++i) {
    y[i] += linear.bias[i % linear.bias.size()];
  }
  return y;
}

}  // namespace

KeysAndValues project_keys_and_values(const PackedLayer& layer, const ModelConfig& config,
                                      std::span<const float> x, int64_t tokens,
                                      std::span<const float> cos_sin, bool rope, bool values) {
  const auto dh = static_cast<size_t>(config.head_dim);
  const auto half = static_cast<size_t>(config.rope.rotary_dim / 2);
  KeysAndValues result;
  result.k = project(layer.k, x, tokens);
  if (values) result.v = project(layer.v, x, tokens);
  const auto heads = static_cast<size_t>(config.kv_heads);
  for (size_t t = 0; t < static_cast<size_t>(tokens); ++t) {
    for (size_t head = 0; head < heads; ++head) {
      const std::span<float> k = std::span(result.k).subspan((t * heads + head) * dh, dh);
      if (!layer.k_norm.empty()) {
        const float factor = numerics::rms_factor(k, static_cast<float>(config.norm_eps));
        for (size_t i = 0; i < dh; ++i) k[i] = (k[i] * factor) * layer.k_norm[i];
      }
      for (size_t i = 0; i < half && rope; ++i) {
        const float* angle = cos_sin.data() + (t * half + i) * 2;
        numerics::rotate_pair(k[i], k[i + half], angle[0], angle[1]);
      }
    }
  }
  return result;
}

void to_cache_form(std::span<float> k, const ModelConfig& config, const KvFormat& format,
                   std::span<const float> k_mean) {
  const auto dh = static_cast<size_t>(config.head_dim);
  for (size_t i = 0; i < k.size(); ++i) {
    if (!k_mean.empty()) k[i] -= k_mean[i % k_mean.size()];
  }
  for (size_t i = 0; i < k.size() && format.hadamard; i += dh) {
    numerics::hadamard(k.subspan(i, dh));
  }
}

}  // namespace atom
