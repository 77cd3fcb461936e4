// Launching kernels that take one struct of parameters, and their dynamic shared memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "backend/cuda/runtime/chained_attribute.h"
#include "base/check.h"

namespace atom::cuda {

// The dynamic shared memory of the running CTA.
__device__ inline uint8_t* dynamic_shared() {
  extern __shared__ __align__(1024) uint8_t memory[];
  return memory;
}

// Kernels of launch_chained() may start while the kernel before them in the stream still runs
// (programmatic dependent launch). Each sets itself up, loads what no kernel writes (weights,
// permutations), then calls, in every thread,
//   - wait_for_previous(), before it touches anything that other kernels write or read: whatever
//     came before in the stream is then complete and visible;
//   - let_next_start(): the next kernel may start once all CTAs came here. Not before the wait, so
//     that no more than two kernels share the chip (but for start_beside_previous()): more of them
//     crowd some multiprocessors and leave others empty.
__device__ inline void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// In place of wait_for_previous(), in a kernel that shares nothing with the one before it, which
// waited for what both need before it let this one start: the two run side by side. What waits for
// this kernel must find that one complete as well, so one CTA ends with wait_for_previous().
__device__ inline void start_beside_previous() { __threadfence(); }  // no older lines in L1
__device__ inline bool is_last_block() {
  return blockIdx.x + 1 == gridDim.x && blockIdx.y + 1 == gridDim.y && blockIdx.z + 1 == gridDim.z;
}

template <class Params>
void launch_chained(void (*kernel)(Params), dim3 grid, int threads, int64_t shared_bytes,
                    const Params& params, cudaStream_t stream) {
  cudaError_t code = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(shared_bytes));
  prefer_shared_memory(reinterpret_cast<const void*>(kernel));
  cudaLaunchAttribute attribute = chained_attribute();
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  if (code == cudaSuccess) code = cudaLaunchKernelEx(&config, kernel, params);
  ATOM_CHECK(code == cudaSuccess, cudaGetErrorString(code));
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
