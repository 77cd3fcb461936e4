// Kernels that only benchmarks need.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace atom::cuda::bench {

// Copies with 16-byte accesses by all multiprocessors.
void copy_kernel(void* to, const void* from, int64_t bytes, cudaStream_t stream);

// What a reorder costs where nothing is fused with it: the columns of x [tokens, channels] in the
// order of perm, the first `body` of them to body_columns as floats, the rest to tail_columns as
// halves.
struct GatherColumns {
  const float* x = nullptr;
  const uint16_t* perm = nullptr;
  float* body_columns = nullptr;  // [tokens, body]
  void* tail_columns = nullptr;   // [tokens, channels - body]
  int64_t tokens = 0, channels = 0, body = 0;
};
void gather_columns(const GatherColumns& args, cudaStream_t stream);

}  // namespace atom::cuda::bench
