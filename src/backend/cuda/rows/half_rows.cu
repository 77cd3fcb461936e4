// half_rows: rows become halves, the inputs of F16 and w4a16 linears.
//   x [T, K] f32 or f16 (SiLU: [T, 2K], gate then up) -> f16 as code_places.h has them
// Work: RMSNorm: a CTA a token, whose thread keeps kRuns runs of 8 channels in registers between
// the sum of squares and the product. SiLU and copies: a thread a run of 8.
// Rounds: to f16 once, beyond its range to its largest number.   Bound: HBM; latency for few
// tokens.
#include <cuda_fp16.h>

#include "backend/cuda/rows/row_kernels.h"
#include "backend/cuda/runtime/elements.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kRun = 8;
constexpr int kRuns = 2;  // of a thread of the norm
constexpr int kMostThreads = 1024;
constexpr int kFlatThreads = 256;

__device__ inline void store_run(uint16_t* to, const float (&v)[kRun]) {
  __align__(16) __half halves[kRun];
#pragma unroll
  for (int i = 0; i < kRun; ++i) halves[i] = saturated_half(v[i]);
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(halves);
}

__global__ __launch_bounds__(kMostThreads) void norm_halves_kernel(
    const __grid_constant__ QuantizeParams p) {
  __shared__ float sums[kMostThreads / 32];
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int runs = p.channels / kRun;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * p.channels;
  const float* x = static_cast<const float*>(p.x) + row;
  wait_for_previous();
  let_next_start();
  float v[kRuns][kRun] = {}, sum = 0;
#pragma unroll
  for (int i = 0; i < kRuns; ++i) {
    const int run = i * threads + thread;
    if (run >= runs) continue;
#pragma unroll
    for (int h = 0; h < kRun; h += 4) {
      const float4 four = *reinterpret_cast<const float4*>(x + run * kRun + h);
      v[i][h] = four.x;
      v[i][h + 1] = four.y;
      v[i][h + 2] = four.z;
      v[i][h + 3] = four.w;
    }
#pragma unroll
    for (int e = 0; e < kRun; ++e) sum = fmaf(v[i][e], v[i][e], sum);
  }
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  if (thread % 32 == 0) sums[thread / 32] = sum;
  __syncthreads();
  sum = thread % 32 < threads / 32 ? sums[thread % 32] : 0.0f;
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
  const float factor = 1.0f / sqrtf(sum / static_cast<float>(p.channels) + p.eps);
#pragma unroll
  for (int i = 0; i < kRuns; ++i) {
    const int run = i * threads + thread;
    if (run >= runs) continue;
#pragma unroll
    for (int h = 0; h < kRun; h += 4) {
      const float4 w = *reinterpret_cast<const float4*>(p.norm_weight + run * kRun + h);
      v[i][h] *= factor * w.x;
      v[i][h + 1] *= factor * w.y;
      v[i][h + 2] *= factor * w.z;
      v[i][h + 3] *= factor * w.w;
    }
    store_run(p.halves_out + p.places.half(blockIdx.x, run * kRun), v[i]);
  }
}

template <class In, bool kSilu>
__global__ __launch_bounds__(kFlatThreads) void flat_halves_kernel(
    const __grid_constant__ QuantizeParams p) {
  const int runs = p.channels / kRun;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kFlatThreads + threadIdx.x;
  wait_for_previous();
  let_next_start();
  if (i >= static_cast<int64_t>(p.tokens) * runs) return;
  const int64_t token = i / runs, run = i % runs;
  const In* x = static_cast<const In*>(p.x) + token * p.channels * (kSilu ? 2 : 1) + run * kRun;
  RawElements<In, kRun> first, second;
  first.load(x);
  if constexpr (kSilu) second.load(x + p.channels);
  float v[kRun];
#pragma unroll
  for (int e = 0; e < kRun; ++e) {
    v[e] = first[e];
    if constexpr (kSilu) v[e] = __fdividef(v[e], 1.0f + __expf(-v[e])) * second[e];
  }
  store_run(p.halves_out + p.places.half(token, run * kRun), v);
}

template <class In, bool kSilu>
void start(const QuantizeParams& p, cudaStream_t stream) {
  const int64_t runs = int64_t{p.tokens} * (p.channels / kRun);
  launch_chained(flat_halves_kernel<In, kSilu>, dim3(blocks_for(runs, kFlatThreads)), kFlatThreads,
                 0, p, stream);
}

}  // namespace

bool launch_half_rows(const QuantizeParams& p, cudaStream_t stream) {
  const bool norm = p.source == RowSource::kNorm;
  if (p.halves_out == nullptr || p.perm != nullptr || p.channels % kRun != 0 ||
      (norm && p.channels > kRun * kRuns * kMostThreads)) {
    return false;
  }
  if (norm) {
    const int threads = (p.channels / kRun + 32 * kRuns - 1) / (32 * kRuns) * 32;
    launch_chained(norm_halves_kernel, dim3(static_cast<unsigned>(p.tokens)), threads, 0, p,
                   stream);
  } else if (p.source == RowSource::kSilu) {
    p.halves ? start<__half, true>(p, stream) : start<float, true>(p, stream);
  } else {
    p.halves ? start<__half, false>(p, stream) : start<float, false>(p, stream);
  }
  return true;
}

}  // namespace atom::cuda
