// In place of src/backend/cuda/runtime/device.cpp: a GPU of compute capability 10.0 whose memory is
// the CPU's.
#include "backend/cuda/runtime/device.h"

#include <new>

namespace atom::cuda {
namespace {

constexpr std::align_val_t kAlignment{256};

}  // namespace

const DeviceInfo& device_info() {
  static const DeviceInfo info = {
      .name = "emulated", .sms = 1, .major = 10, .minor = 0, .l2_bytes = 0};
  return info;
}

Result<void*> device_allocate(int64_t bytes) {
  return ::operator new(static_cast<size_t>(bytes), kAlignment);
}
void device_free(void* p) { ::operator delete(p, kAlignment); }

}  // namespace atom::cuda
