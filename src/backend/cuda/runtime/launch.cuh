// Launching kernels that take one struct of parameters, and their dynamic shared memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "base/check.h"

namespace atom::cuda {

// The dynamic shared memory of the running CTA.
__device__ inline uint8_t* dynamic_shared() {
  extern __shared__ __align__(1024) uint8_t memory[];
  return memory;
}

template <class Params>
void launch(void (*kernel)(Params), dim3 grid, int threads, int64_t shared_bytes,
            const Params& params, cudaStream_t stream) {
  constexpr int64_t kFree = 48 << 10;  // more than this has to be asked for
  cudaError_t code = cudaSuccess;
  if (shared_bytes > kFree) {
    code = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                static_cast<int>(shared_bytes));
  }
  if (code == cudaSuccess) {
    kernel<<<grid, static_cast<unsigned>(threads), static_cast<size_t>(shared_bytes), stream>>>(
        params);
    code = cudaGetLastError();
  }
  ATOM_CHECK(code == cudaSuccess, cudaGetErrorString(code));
}

// CTAs that `count` items make, `each` a CTA.
inline unsigned blocks_for(int64_t count, int64_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

}  // namespace atom::cuda
