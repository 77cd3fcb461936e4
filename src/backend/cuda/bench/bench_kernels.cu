#include <cuda_fp16.h>

#include "backend/cuda/bench/bench_kernels.h"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda::bench {
namespace {

constexpr int kThreads = 512, kUnroll = 4;

__global__ void copy_bytes_kernel(uint4* to, const uint4* from, int64_t pieces) {
  const int64_t base = static_cast<int64_t>(blockIdx.x) * kThreads * kUnroll + threadIdx.x;
  uint4 v[kUnroll];
#pragma unroll
  for (int i = 0; i < kUnroll; ++i) {
    if (base + i * kThreads < pieces) v[i] = from[base + i * kThreads];
  }
#pragma unroll
  for (int i = 0; i < kUnroll; ++i) {
    if (base + i * kThreads < pieces) to[base + i * kThreads] = v[i];
  }
}

// A CTA a token; the row is read through L1.
__global__ __launch_bounds__(kThreads) void gather_columns_kernel(
    const __grid_constant__ GatherColumns p) {
  const int64_t token = blockIdx.x, tail = p.channels - p.body;
  const float* row = p.x + token * p.channels;
  auto* halves = static_cast<__half*>(p.tail_columns);
  for (int64_t k = threadIdx.x; k < p.channels; k += kThreads) {
    const float value = row[p.perm[k]];
    if (k < p.body) {
      p.body_columns[token * p.body + k] = value;
    } else {
      halves[token * tail + k - p.body] = __float2half_rn(value);
    }
  }
}

}  // namespace

void gather_columns(const GatherColumns& args, cudaStream_t stream) {
  launch(gather_columns_kernel, dim3(static_cast<unsigned>(args.tokens)), kThreads, 0, args,
         stream);
}

void copy_kernel(void* to, const void* from, int64_t bytes, cudaStream_t stream) {
  const int64_t pieces = bytes / 16, per_block = kThreads * kUnroll;
  copy_bytes_kernel<<<static_cast<unsigned>((pieces + per_block - 1) / per_block), kThreads, 0,
                      stream>>>(static_cast<uint4*>(to), static_cast<const uint4*>(from), pieces);
}

}  // namespace atom::cuda::bench
