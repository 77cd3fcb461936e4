// The decode attention kernels as host code sees them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace atom::cuda::decode {

inline constexpr int kWarps = 4;
inline constexpr int kThreads = 32 * kWarps;
inline constexpr int kCtasPerSm = 4;  // wanted on a multiprocessor
inline constexpr int kGroup = 8;      // query heads a KV head: columns of the tensor core products

struct Params {
  const void* q;
  void* out;
  const uint8_t* cache;
  int64_t page_stride;
  const int32_t* pages;
  const int32_t* lengths;
  int max_pages;
  int heads, kv_heads;
  float scale_log2;  // softmax scale * log2(e)
  int splits;
  float* partials;     // [sequence][kv head][split][group][DH + 2]: sums, then maximum and weight
  uint32_t* counters;  // [sequence][kv head], zero between launches
};

// Launches the kernel of a cache format, head_dim and output type; null when there is none.
using Launcher = void (*)(const Params& params, int sequences, cudaStream_t stream);
Launcher find_launcher(bool int4, int head_dim, bool f32_output);

}  // namespace atom::cuda::decode
