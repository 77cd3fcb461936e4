#include "backend/cuda/runtime/device.h"

#include <algorithm>

namespace atom::cuda {

const DeviceInfo& device_info() {
  static const DeviceInfo info = [] {
    cudaDeviceProp properties;
    ATOM_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
    return DeviceInfo{.name = properties.name,
                      .sms = properties.multiProcessorCount,
                      .major = properties.major,
                      .minor = properties.minor,
                      .l2_bytes = properties.l2CacheSize};
  }();
  return info;
}

Status check_device() {
  int devices = 0;
  const cudaError_t code = cudaGetDeviceCount(&devices);
  if (code != cudaSuccess || devices == 0) {
    (void)cudaGetLastError();
    return error(ErrorCode::kUnsupported, "device 'cuda': no usable GPU: {}",
                 code == cudaSuccess ? "none found" : cudaGetErrorString(code));
  }
  const DeviceInfo& info = device_info();
  if (info.major != 9 || info.minor != 0) {
    return error(ErrorCode::kUnsupported,
                 "device 'cuda': {} has compute capability {}.{}; this build has kernels for 9.0",
                 info.name, info.major, info.minor);
  }
  return {};
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
