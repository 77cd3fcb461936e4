// argmax: y[i] = where the largest of x's row i is, see row_best.cuh.
//   x [R, V] f32   y [R] i32
// Work: a CTA a row, its columns strided over the threads.
// Bound: memory; for few rows one SM's share.
#include "backend/cuda/rows/row_best.cuh"
#include "backend/cuda/rows/row_kernels.h"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kArgmaxThreads = 512;

__global__ __launch_bounds__(kArgmaxThreads) void argmax_kernel(
    const __grid_constant__ ChooseParams p) {
  __shared__ Place of_warps[kArgmaxThreads / kWarpLanes];
  wait_for_previous();
  let_next_start();
  const float* x = p.x + static_cast<int64_t>(blockIdx.x) * p.cols;
  const Place best = best_of_row<kArgmaxThreads>(x, static_cast<int>(p.cols), of_warps);
  if (threadIdx.x == 0) p.y[blockIdx.x] = best.index;
}

}  // namespace

void launch_argmax(const ChooseParams& params, cudaStream_t stream) {
  launch_chained(argmax_kernel, dim3(static_cast<unsigned>(params.rows)), kArgmaxThreads, 0, params,
                 stream);
}

}  // namespace atom::cuda
