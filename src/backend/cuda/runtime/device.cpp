#include "backend/cuda/runtime/device.h"

#include <algorithm>

namespace atom::cuda {

const DeviceInfo& device_info() {
  static const DeviceInfo info = [] {
    cudaDeviceProp properties;
    ATOM_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
    return DeviceInfo{.sms = properties.multiProcessorCount,
                      .major = properties.major,
                      .minor = properties.minor,
                      .l2_bytes = properties.l2CacheSize};
  }();
  return info;
}

Result<void*> device_allocate(int64_t bytes) {
  void* p = nullptr;
  const cudaError_t code = cudaMalloc(&p, static_cast<size_t>(std::max<int64_t>(bytes, 1)));
  if (code == cudaSuccess) return p;
  (void)cudaGetLastError();
  return error(ErrorCode::kOutOfMemory, "GPU memory: {} bytes: {}", bytes,
               cudaGetErrorString(code));
}

void device_free(void* p) { (void)cudaFree(p); }

}  // namespace atom::cuda
