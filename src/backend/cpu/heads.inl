// Kernels for one head's vector: norm, RoPE, centring and Hadamard, and K and V codes, step by step
// as ops/numerics.h has them.
#pragma once

#include "backend/cpu/rows.inl"

namespace atom::cpu {
namespace {

template <int kStride>
ATOM_ALWAYS_INLINE Floats butterfly(Floats x) {
  alignas(64) static constexpr auto kSigns = [] {
    struct {
      float v[kLanes];
    } signs = {};
    for (int64_t i = 0; i < kLanes; ++i) signs.v[i] = (i & kStride) != 0 ? -1.0f : 1.0f;
    return signs;
  }();
  return swap_lanes<kStride>(x) + x * load(kSigns.v);
}

// Butterflies of stride 1, 2, 4 ... and one product: numerics::hadamard.
ATOM_ALWAYS_INLINE void hadamard(float* x, int64_t n, float factor) {
  if (n < kLanes) {
    for (int64_t stride = 1; stride < n; stride *= 2) {
      for (int64_t i = 0; i < n; ++i) {
        if ((i & stride) != 0) continue;
        const float a = x[i], b = x[i + stride];
        x[i] = a + b;
        x[i + stride] = a - b;
      }
    }
    for (int64_t i = 0; i < n; ++i) x[i] *= factor;
    return;
  }
  for (int64_t i = 0; i < n; i += kLanes) {
    store(x + i, butterfly<8>(butterfly<4>(butterfly<2>(butterfly<1>(load(x + i))))));
  }
  for (int64_t stride = kLanes; stride < n; stride *= 2) {
    for (int64_t i = 0; i < n; i += kLanes) {
      if ((i & stride) != 0) continue;
      const Floats a = load(x + i), b = load(x + i + stride);
      store(x + i, a + b);
      store(x + i + stride, a - b);
    }
  }
  for (int64_t i = 0; i < n; i += kLanes) store(x + i, load(x + i) * splat(factor));
}

void prepare_head(const HeadJob& job) {
  float* x = job.x;
  if (job.norm_weight != nullptr) {
    normalize(x, job.norm_weight, job.norm_factor, nullptr, job.dim, x);
  }
  if (job.cos != nullptr) {
    for_blocks(job.half, [&](int64_t i, int64_t n) {
      const Floats a = load_first(x + i, n), b = load_first(x + i + job.half, n);
      const Floats cos = load_first(job.cos + i, n), sin = load_first(job.sin + i, n);
      store_first(x + i, fma(a, cos, negate(b * sin)), n);
      store_first(x + i + job.half, fma(b, cos, a * sin), n);
    });
  }
  if (job.mean != nullptr) {
    for_blocks(job.dim, [&](int64_t i, int64_t n) {
      store_first(x + i, load_first(x + i, n) - load_first(job.mean + i, n), n);
    });
  }
  if (job.hadamard_factor != 0.0f) hadamard(x, job.dim, job.hadamard_factor);
}

KvRange quantize_kv(const float* x, int64_t count, int bits, uint8_t* codes) {
  float low, high;
  find_range(x, count, low, high);
  const KvRange range = kv_range(low, high, bits);
  for_blocks(count, [&](int64_t i, int64_t n) {
    const Floats code =
        round_even((load_first(x + i, n) - splat(range.base)) * splat(range.inverse));
    store_bytes_first(reinterpret_cast<int8_t*>(codes) + i,
                      to_int(min(max(splat(0.0f), code), splat(range.top))), n);
  });
  return range;
}

}  // namespace
}  // namespace atom::cpu
