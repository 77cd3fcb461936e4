#include "backend/cuda/runtime/device.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "backend/cuda/runtime/chained_attribute.h"

namespace atom::cuda {
namespace {

// What the kernels were compiled for, as in "80 90a"; the build says.
#ifdef ATOM_CUDA_ARCHS
constexpr std::string_view kArchs = ATOM_CUDA_ARCHS;
#else
constexpr std::string_view kArchs = "90a";
#endif

// Whether machine code for `arch` runs on a chip: on the later ones of its generation too, unless a
// letter binds it to one.
bool runs_on(std::string_view arch, int major, int minor) {
  int number = 0;
  const auto [end, code] = std::from_chars(arch.data(), arch.data() + arch.size(), number);
  ATOM_CHECK(code == std::errc(), "unreadable architecture");
  const bool bound = end != arch.data() + arch.size();
  return number / 10 == major && (bound ? number % 10 == minor : number % 10 <= minor);
}

bool has_kernels_for(int major, int minor) {
  for (std::string_view rest = kArchs; !rest.empty();) {
    const size_t end = std::min(rest.find(' '), rest.size());
    if (runs_on(rest.substr(0, end), major, minor)) return true;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return false;
}

}  // namespace

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
  if (!has_kernels_for(info.major, info.minor)) {
    return error(ErrorCode::kUnsupported,
                 "device 'cuda': {} has compute capability {}.{}; this build has kernels for sm {}",
                 info.name, info.major, info.minor, kArchs);
  }
  return {};
}

cudaLaunchAttribute chained_attribute() {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = device_info().major >= 9 ? 1 : 0;
  return attribute;
}

void prefer_shared_memory(const void* kernel) {
  (void)cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                             cudaSharedmemCarveoutMaxShared);
}

Result<void*> device_allocate(int64_t bytes) {
  void* p = nullptr;
  const cudaError_t code = cudaMalloc(&p, static_cast<size_t>(std::max<int64_t>(bytes, 1)));
  if (code == cudaSuccess) return p;
  (void)cudaGetLastError();
  size_t free = 0, total = 0;
  (void)cudaMemGetInfo(&free, &total);
  return error(ErrorCode::kOutOfMemory, "GPU memory: {} bytes wanted, {} of {} free: {}", bytes,
               free, total, cudaGetErrorString(code));
}

void device_free(void* p) { (void)cudaFree(p); }

int64_t device_free_bytes() {
  size_t free = 0, total = 0;
  ATOM_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free);
}

}  // namespace atom::cuda
