// RMSNorm's sum of squares in the lanes of numerics::rms_factor, a warp 256 of them.
#pragma once

#include "ops/numerics.h"

namespace atom::cuda {

inline constexpr int kNormWarps = numerics::kNormLanes / 256;

// The sum of the warp's lanes, eight a thread, in every thread.
__device__ inline float sum_of_lanes(const float (&l)[8]) {
  float sum = ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  }
  return sum;
}

// The sum of lanes 256 w .. 256 w + 255 over all of x [n], in every lane of the warp.
__device__ inline float norm_lanes_sum(const float* x, int n, int w, int lane) {
  float l[8] = {};
  for (int first = w * 256 + lane * 8; first < n; first += numerics::kNormLanes) {
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      if (first + e < n) l[e] += x[first + e] * x[first + e];
    }
  }
  return sum_of_lanes(l);
}

// The factor from the sums of all kNormWarps; changes sums.
__device__ inline float norm_factor(float (&sums)[kNormWarps], int n, float eps) {
#pragma unroll
  for (int step = kNormWarps / 2; step > 0; step /= 2) {
#pragma unroll
    for (int w = 0; w < step; ++w) sums[w] += sums[w + step];
  }
  return 1.0f / std::sqrt(sums[0] * (1.0f / static_cast<float>(n)) + eps);
}

}  // namespace atom::cuda
