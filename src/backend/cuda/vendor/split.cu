// split: floats as two halves, split_kernels.h.
// Work: a thread takes 8 elements of a row.   Rounds: to nearest even, twice.   Bound: HBM.
#include <cuda_fp16.h>

#include "backend/cuda/runtime/launch.cuh"
#include "backend/cuda/vendor/split_kernels.h"

namespace atom::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRun = 8;
constexpr int kMirrorTile = 32;

// The exponent e of a matrix: its largest element becomes 2^14 to 2^15. Bounded so that two of them
// make a normal float.
__device__ int exponent_of(uint32_t largest) {
  const int exponent = static_cast<int>(largest >> 23) - 127;
  return 14 - min(max(exponent, -40), 60);
}
__device__ float power_of_two(int exponent) {
  return __uint_as_float(static_cast<uint32_t>(exponent + 127) << 23);
}

__global__ __launch_bounds__(kThreads) void largest_kernel(
    const __grid_constant__ LargestParams p) {
  uint32_t largest = 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < p.count;
       i += step) {
    largest = max(largest, __float_as_uint(p.x[i]) & 0x7fffffffu);
  }
  largest = __reduce_max_sync(0xffffffffu, largest);
  if (threadIdx.x % 32 == 0) atomicMax(p.largest, largest);
}

__global__ __launch_bounds__(kThreads) void split_kernel(const __grid_constant__ SplitParams p) {
  const int64_t runs = p.cols / kRun;
  const int64_t run = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (run >= p.rows * runs) return;
  const int64_t row = run / runs, col = run % runs * kRun;
  const float scale = power_of_two(exponent_of(*p.largest));
  const float* from = p.x + row * p.cols + col;
  __align__(16) __half high[kRun];
  __align__(16) __half low[kRun];
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    const float x = from[i] * scale;
    high[i] = __float2half_rn(x);
    low[i] = __float2half_rn(x - __half2float(high[i]));
  }
  uint16_t* to = p.to + row * p.row_stride + col;
  for (int part = 0; part < p.parts; ++part) {
    *reinterpret_cast<uint4*>(to + part * p.part_stride) =
        *reinterpret_cast<const uint4*>(part == p.low ? low : high);
  }
}

__global__ void scales_kernel(const __grid_constant__ SplitScaleParams p) {
  p.scales[0] = power_of_two(-exponent_of(*p.a)) * power_of_two(-exponent_of(*p.b));
  p.scales[1] = p.beta;
}

__global__ __launch_bounds__(kThreads) void mirror_kernel(const __grid_constant__ MirrorParams p) {
  __shared__ float tile[kMirrorTile][kMirrorTile + 1];
  if (blockIdx.x > blockIdx.y) return;
  const int64_t row0 = int64_t{blockIdx.y} * kMirrorTile, col0 = int64_t{blockIdx.x} * kMirrorTile;
  const int x = static_cast<int>(threadIdx.x) % kMirrorTile;
  const int y = static_cast<int>(threadIdx.x) / kMirrorTile;
  for (int i = y; i < kMirrorTile; i += kThreads / kMirrorTile) {
    if (row0 + i < p.n && col0 + x < p.n) tile[i][x] = p.square[(row0 + i) * p.n + col0 + x];
  }
  __syncthreads();
  for (int i = y; i < kMirrorTile; i += kThreads / kMirrorTile) {
    const int64_t row = col0 + i, col = row0 + x;  // above the diagonal
    if (row < col && col < p.n) p.square[row * p.n + col] = tile[x][i];
  }
}

}  // namespace

void launch_largest(const LargestParams& params, cudaStream_t stream) {
  constexpr int64_t kEach = 16;  // elements of a thread at least
  constexpr unsigned kMostBlocks = 1024;
  const unsigned blocks = blocks_for(params.count, kEach * kThreads);
  launch(largest_kernel, dim3(blocks < kMostBlocks ? blocks : kMostBlocks), kThreads, 0, params,
         stream);
}

void launch_split(const SplitParams& params, cudaStream_t stream) {
  launch(split_kernel, dim3(blocks_for(params.rows * (params.cols / kRun), kThreads)), kThreads, 0,
         params, stream);
}

void launch_split_scales(const SplitScaleParams& params, cudaStream_t stream) {
  launch(scales_kernel, dim3(1), 1, 0, params, stream);
}

void launch_mirror(const MirrorParams& params, cudaStream_t stream) {
  const unsigned tiles = blocks_for(params.n, kMirrorTile);
  launch(mirror_kernel, dim3(tiles, tiles), kThreads, 0, params, stream);
}

}  // namespace atom::cuda
