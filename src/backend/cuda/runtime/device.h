// The CUDA runtime as this backend uses it: checked calls, and owned arrays in GPU memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/status.h"

// For calls that only a bug or a dying GPU can make fail.
#define ATOM_CUDA_CHECK(call)                                                        \
  do {                                                                               \
    const cudaError_t atom_cuda_error = (call);                                      \
    ATOM_CHECK(atom_cuda_error == cudaSuccess, cudaGetErrorString(atom_cuda_error)); \
  } while (false)

namespace atom::cuda {

// What launchers ask about the GPU.
struct DeviceInfo {
  std::string name;
  int sms = 0;
  int major = 0, minor = 0;  // compute capability
  bool hopper() const { return major == 9 && minor == 0; }
  int64_t l2_bytes = 0;
};
// REQUIRES: check_device() was ok.
const DeviceInfo& device_info();

// Fails (kUnsupported) with the reason where no GPU, no driver or no kernels for the GPU are there.
Status check_device();

// Operators have no way to report that the GPU has no memory left for the few kilobytes that they
// keep of their arguments.
template <class T>
T must(Result<T> result) {
  ATOM_CHECK(result.ok(), result.status().message().c_str());
  return std::move(result).value();
}
inline void must(const Status& status) { ATOM_CHECK(status.ok(), status.message().c_str()); }

// Bytes of GPU memory, owned. Allocation is an error value: the size may come from an input.
Result<void*> device_allocate(int64_t bytes);
void device_free(void* p);
// Bytes that could be allocated now.
int64_t device_free_bytes();

template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  ~DeviceArray() { device_free(data_); }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  // Contents are undefined.
  static Result<DeviceArray> allocate(int64_t size) {
    DeviceArray array;
    array.data_ = static_cast<T*>(ATOM_TRY(device_allocate(size * int64_t{sizeof(T)})));
    array.size_ = size;
    return array;
  }
  static Result<DeviceArray> copy_of(std::span<const T> host) {
    DeviceArray array = ATOM_TRY(allocate(static_cast<int64_t>(host.size())));
    ATOM_CUDA_CHECK(
        cudaMemcpy(array.data_, host.data(), host.size_bytes(), cudaMemcpyHostToDevice));
    return array;
  }

  std::vector<T> to_host() const { return to_host(size_); }
  // The first `count` elements. REQUIRES: count <= size().
  std::vector<T> to_host(int64_t count) const {
    std::vector<T> host(static_cast<size_t>(count));
    ATOM_CUDA_CHECK(
        cudaMemcpy(host.data(), data_, host.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return host;
  }
  // Sets every byte.
  void fill_bytes(int value) {
    ATOM_CUDA_CHECK(cudaMemset(data_, value, static_cast<size_t>(size_) * sizeof(T)));
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace atom::cuda
