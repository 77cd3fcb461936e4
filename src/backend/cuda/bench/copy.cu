#include "backend/cuda/bench/copy.h"

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

}  // namespace

void copy_kernel(void* to, const void* from, int64_t bytes, cudaStream_t stream) {
  const int64_t pieces = bytes / 16, per_block = kThreads * kUnroll;
  copy_bytes_kernel<<<static_cast<unsigned>((pieces + per_block - 1) / per_block), kThreads, 0,
                      stream>>>(static_cast<uint4*>(to), static_cast<const uint4*>(from), pieces);
}

}  // namespace atom::cuda::bench
