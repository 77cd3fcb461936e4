// Launching kernels of launch.cuh whose CTAs form clusters.
#pragma once

#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {

// launch_chained() with clusters of so many CTAs in a row along x; 1: none.
template <class Params>
void launch_clusters(void (*kernel)(Params), dim3 grid, int threads, int64_t shared_bytes,
                     int cluster, const Params& params, cudaStream_t stream) {
  cudaError_t code = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(shared_bytes));
  prefer_shared_memory(reinterpret_cast<const void*>(kernel));
  cudaLaunchAttribute attributes[2] = {chained_attribute(), {}};
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = cluster > 1 ? 2 : 1;
  if (code == cudaSuccess) code = cudaLaunchKernelEx(&config, kernel, params);
  ATOM_CHECK(code == cudaSuccess, cudaGetErrorString(code));
}

}  // namespace atom::cuda
