// argmax: y[i] = where the largest of x's row i is, the first of equal ones; 0 where none is above
// minus infinity; no NaN is above anything.
//   x [R, V] f32   y [R] i32
// Work: a CTA a row, its columns strided over the threads. What wins depends on value and place
// alone, so the order of comparing does not matter.   Bound: memory; for few rows one SM's share.
#include "backend/cuda/rows/row_kernels.h"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kArgmaxThreads = 512;
constexpr int kLanes = 32;

struct Place {
  float value;
  int index;
};

__device__ Place better(Place a, Place b) {
  const bool second = b.value > a.value || (b.value == a.value && b.index < a.index);
  return second ? b : a;
}

__device__ Place best_of_warp(Place best) {
#pragma unroll
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
    const Place other = {__shfl_xor_sync(0xffffffffu, best.value, lanes),
                         __shfl_xor_sync(0xffffffffu, best.index, lanes)};
    best = better(best, other);
  }
  return best;
}

__global__ __launch_bounds__(kArgmaxThreads) void argmax_kernel(
    const __grid_constant__ ArgmaxParams p) {
  __shared__ Place best_of[kArgmaxThreads / kLanes];
  wait_for_previous();
  let_next_start();
  const int thread = static_cast<int>(threadIdx.x), cols = static_cast<int>(p.cols);
  const float* x = p.x + static_cast<int64_t>(blockIdx.x) * p.cols;
  Place best = {-INFINITY, 0};
  // A thread meets its columns in ascending order: only what is larger replaces.
  const auto take = [&](float value, int index) {
    if (value > best.value) best = {value, index};
  };
  if (cols % 4 == 0) {
    const auto* x4 = reinterpret_cast<const float4*>(x);
#pragma unroll 4
    for (int k = thread; k < cols / 4; k += kArgmaxThreads) {
      const float4 values = x4[k];
      take(values.x, 4 * k);
      take(values.y, 4 * k + 1);
      take(values.z, 4 * k + 2);
      take(values.w, 4 * k + 3);
    }
  } else {
    for (int k = thread; k < cols; k += kArgmaxThreads) take(x[k], k);
  }
  best = best_of_warp(best);
  if (thread % kLanes == 0) best_of[thread / kLanes] = best;
  __syncthreads();
  if (thread >= kLanes) return;
  best = best_of_warp(thread < kArgmaxThreads / kLanes ? best_of[thread] : Place{-INFINITY, 0});
  if (thread == 0) p.y[blockIdx.x] = best.index;
}

}  // namespace

void launch_argmax(const ArgmaxParams& params, cudaStream_t stream) {
  if (params.rows == 0) return;
  launch_chained(argmax_kernel, dim3(static_cast<unsigned>(params.rows)), kArgmaxThreads, 0, params,
                 stream);
}

}  // namespace atom::cuda
