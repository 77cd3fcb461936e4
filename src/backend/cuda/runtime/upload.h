// Small arrays that change from step to step, on their way to the GPU without waiting for it.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "backend/cuda/runtime/device.h"

namespace atom::cuda {

// Memory of the host that the copy engine reads directly.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  ~PinnedBuffer();

  // At least `size` ints, no more where it grows; contents are lost then.
  Status reserve(int64_t size);
  int32_t* data() { return data_; }

 private:
  int32_t* data_ = nullptr;
  int64_t size_ = 0;
};

// One array in GPU memory. Each upload replaces it, in the stream's order; the host goes on at
// once.
class Upload {
 public:
  Upload() = default;
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;
  ~Upload();

  // Makes room for arrays of `size` ints beforehand.
  Status reserve(int64_t size, cudaStream_t stream);
  // Fails when memory is short. The array moves only when it grows.
  Status send(std::span<const int32_t> values, cudaStream_t stream);
  const int32_t* data() const { return device_.data(); }

 private:
  struct Stage {
    PinnedBuffer host;
    cudaEvent_t copied = nullptr;
  };
  std::array<Stage, 4> stages_;
  size_t next_ = 0;
  DeviceArray<int32_t> device_;
};

}  // namespace atom::cuda
