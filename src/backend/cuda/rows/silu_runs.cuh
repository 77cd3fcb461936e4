// Runs of eight columns of silu(gate) * up on their way into w4a8 inputs: what the kernels that
// share a row out in different ways have in common. Rounds: as ops/numerics.h, operation by
// operation (compiled without contraction).
#pragma once

#include "backend/cuda/rows/codes.cuh"
#include "backend/cuda/rows/row_kernels.h"
#include "backend/cuda/runtime/elements.cuh"
#include "ops/numerics.h"

namespace atom::cuda {

inline constexpr int kRun = 8;

// Whether silu_mul_ordinary() serves all gates of a run. A NaN comes out as one either way.
__device__ inline bool ordinary(const RawElements<float, kRun>&) { return false; }
__device__ inline bool ordinary(const RawElements<__half, kRun>& gates) {
  const auto* pairs = reinterpret_cast<const __half2*>(gates.words);
  __half2 low = pairs[0], high = pairs[0];
#pragma unroll
  for (int i = 1; i < kRun / 2; ++i) {
    low = __hmin2(low, pairs[i]);
    high = __hmax2(high, pairs[i]);
  }
  const float2 least = __half22float2(low), most = __half22float2(high);
  return fminf(least.x, least.y) >= kLeastGate && fmaxf(most.x, most.y) <= 65504.0f;
}

// v = silu(gate) * up; returns the largest magnitude.
template <class In>
__device__ float silu_run(const RawElements<In, kRun>& gate, const RawElements<In, kRun>& up,
                          float (&v)[kRun]) {
  if (ordinary(gate)) {
#pragma unroll
    for (int e = 0; e < kRun; ++e) v[e] = silu_mul_ordinary(gate[e], up[e]);
  } else {
#pragma unroll
    for (int e = 0; e < kRun; ++e) v[e] = silu_mul(gate[e], up[e]);
  }
  float most = 0;
#pragma unroll
  for (int e = 0; e < kRun; ++e) most = fmaxf(most, fabsf(v[e]));
  return most;
}

// top: the largest magnitude of the body, and of the outliers.
__device__ inline void add_magnitude(float magnitude, int run, const QuantizeParams& p,
                                     float2& top) {
  if (run * kRun < p.body) {
    top.x = fmaxf(top.x, magnitude);
  } else {
    top.y = fmaxf(top.y, magnitude);
  }
}

struct RowScales {
  numerics::GroupScale body, outliers;
};
__device__ inline RowScales row_scales(float2 top, const QuantizeParams& p) {
  const auto scale_of = [](float most, float clip) {
    return numerics::group_scale(-most, most, 8, ActRule::kSymmetric, clip);
  };
  return {.body = scale_of(top.x, p.format.clip), .outliers = scale_of(top.y, 1.0f)};
}
__device__ inline void store_scales(const RowScales& scales, int64_t token,
                                    const QuantizeParams& p) {
  p.scales[token] = scales.body.scale;
  if (p.outlier_kind == OutlierKind::kInt8) p.outlier_scales[token] = scales.outliers.scale;
}

// Stores a run's codes; returns their sum, if they are the body's.
__device__ inline int store_run(const float (&v)[kRun], const RowScales& scales, int run,
                                int64_t token, const QuantizeParams& p) {
  const bool in_body = run * kRun < p.body;
  const numerics::GroupScale& g = in_body ? scales.body : scales.outliers;
  const float limit = g.scale != 0.0f ? 127.0f : 0.0f;
  const uint2 words = make_uint2(quantize4({v[0], v[1], v[2], v[3]}, g.inverse, limit),
                                 quantize4({v[4], v[5], v[6], v[7]}, g.inverse, limit));
  const int64_t column = int64_t{run} * kRun + (in_body ? 0 : p.places.outlier_offset - p.body);
  *reinterpret_cast<uint2*>(p.codes + w4a8::activation_offset(column / w4a8::kBlockCols, token,
                                                              column % w4a8::kBlockCols,
                                                              p.places.capacity)) = words;
  if (!in_body) return 0;
  return __dp4a(static_cast<int>(words.y), 0x01010101,
                __dp4a(static_cast<int>(words.x), 0x01010101, 0));
}

}  // namespace atom::cuda
