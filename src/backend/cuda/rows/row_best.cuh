// The largest element of a row that a CTA reads, and where it is: the first of equal ones; 0 where
// none is above minus infinity; no NaN is above anything. What wins depends on value and place
// alone, so the order of comparing does not matter.
#pragma once

#include <cstdint>

namespace atom::cuda {

inline constexpr int kWarpLanes = 32;

struct Place {
  float value;
  int index;
};

__device__ inline Place better(Place a, Place b) {
  const bool second = b.value > a.value || (b.value == a.value && b.index < a.index);
  return second ? b : a;
}

__device__ inline Place best_of_warp(Place best) {
#pragma unroll
  for (int lanes = kWarpLanes / 2; lanes > 0; lanes /= 2) {
    const Place other = {__shfl_xor_sync(0xffffffffu, best.value, lanes),
                         __shfl_xor_sync(0xffffffffu, best.index, lanes)};
    best = better(best, other);
  }
  return best;
}

// The same in every thread of the CTA. of_warps: shared memory, not used by any other.
template <int kThreads>
__device__ Place best_of_row(const float* x, int cols, Place (&of_warps)[kThreads / kWarpLanes]) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarpLanes;
  Place best = {-INFINITY, 0};
  // A thread meets its columns in ascending order: only what is larger replaces.
  const auto take = [&](float value, int index) {
    if (value > best.value) best = {value, index};
  };
  if (cols % 4 == 0) {
    const auto* x4 = reinterpret_cast<const float4*>(x);
#pragma unroll 4
    for (int k = thread; k < cols / 4; k += kThreads) {
      const float4 values = x4[k];
      take(values.x, 4 * k);
      take(values.y, 4 * k + 1);
      take(values.z, 4 * k + 2);
      take(values.w, 4 * k + 3);
    }
  } else {
    for (int k = thread; k < cols; k += kThreads) take(x[k], k);
  }
  best = best_of_warp(best);
  if (lane == 0) of_warps[thread / kWarpLanes] = best;
  __syncthreads();
  return best_of_warp(lane < kThreads / kWarpLanes ? of_warps[lane] : Place{-INFINITY, 0});
}

}  // namespace atom::cuda
