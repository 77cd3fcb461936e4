#include "quant/key_value_probe.h"

#include <algorithm>

#include "base/parallel.h"
#include "ops/numerics.h"

namespace atom {

void finish_keys(std::span<float> keys, const LayerVectors& layer, const ModelConfig& config,
                 std::span<const float> cos_sin, bool rope) {
  const auto dh = static_cast<size_t>(config.head_dim);
  const auto half = static_cast<size_t>(config.rope.rotary_dim / 2);
  const auto heads = static_cast<size_t>(config.kv_heads);
  parallel_for(static_cast<int64_t>(keys.size() / (heads * dh)), [&](int64_t token) {
    const auto t = static_cast<size_t>(token);
    for (size_t head = 0; head < heads; ++head) {
      const std::span<float> k = keys.subspan((t * heads + head) * dh, dh);
      if (!layer.k_norm.empty()) {
        const float factor = numerics::rms_factor(k, static_cast<float>(config.norm_eps));
        for (size_t i = 0; i < dh; ++i) k[i] = (k[i] * factor) * layer.k_norm[i];
      }
      for (size_t i = 0; i < half && rope; ++i) {
        const float* angle = cos_sin.data() + (t * half + i) * 2;
        numerics::rotate_pair(k[i], k[i + half], angle[0], angle[1]);
      }
    }
  });
}

void add_keys(std::span<const float> keys, std::span<double> sums) {
  constexpr size_t kTogether = 64;  // channels of an item
  const size_t width = sums.size();
  parallel_for(static_cast<int64_t>((width + kTogether - 1) / kTogether), [&](int64_t item) {
    const size_t first = static_cast<size_t>(item) * kTogether;
    const size_t end = std::min(width, first + kTogether);
    for (size_t row = 0; row < keys.size(); row += width) {
      for (size_t i = first; i < end; ++i) sums[i] += keys[row + i];
    }
  });
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
