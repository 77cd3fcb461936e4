#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace atom::cuda::bench {

// Copies with 16-byte accesses by all multiprocessors.
void copy_kernel(void* to, const void* from, int64_t bytes, cudaStream_t stream);

}  // namespace atom::cuda::bench
