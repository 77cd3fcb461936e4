#include "backend/cuda/runtime/upload.h"

#include <algorithm>

namespace atom::cuda {

PinnedBuffer::~PinnedBuffer() { (void)cudaFreeHost(data_); }

Status PinnedBuffer::reserve(int64_t size) {
  if (size <= size_) return {};
  void* grown = nullptr;
  const auto bytes = static_cast<size_t>(size) * sizeof(int32_t);
  const cudaError_t code = cudaHostAlloc(&grown, bytes, cudaHostAllocDefault);
  if (code != cudaSuccess) {
    (void)cudaGetLastError();
    return error(ErrorCode::kOutOfMemory, "pinned memory: {} bytes: {}", bytes,
                 cudaGetErrorString(code));
  }
  ATOM_CUDA_CHECK(cudaFreeHost(data_));
  data_ = static_cast<int32_t*>(grown);
  size_ = size;
  return {};
}

Upload::~Upload() {
  for (Stage& stage : stages_) {
    if (stage.copied != nullptr) (void)cudaEventDestroy(stage.copied);
  }
}

Status Upload::reserve(int64_t size, cudaStream_t stream) {
  if (size <= device_.size()) return {};
  ATOM_CUDA_CHECK(cudaStreamSynchronize(stream));  // kernels may still read what is there
  device_ = ATOM_TRY(DeviceArray<int32_t>::allocate(2 * size));
  return {};
}

Status Upload::send(std::span<const int32_t> values, cudaStream_t stream) {
  const auto size = static_cast<int64_t>(values.size());
  ATOM_TRY(reserve(size, stream));
  Stage& stage = stages_[next_];
  next_ = (next_ + 1) % stages_.size();
  if (stage.copied == nullptr) {
    ATOM_CUDA_CHECK(cudaEventCreateWithFlags(&stage.copied, cudaEventDisableTiming));
  } else {
    ATOM_CUDA_CHECK(cudaEventSynchronize(stage.copied));
  }
  ATOM_TRY(stage.host.reserve(device_.size()));
  std::copy(values.begin(), values.end(), stage.host.data());
  ATOM_CUDA_CHECK(cudaMemcpyAsync(device_.data(), stage.host.data(), values.size_bytes(),
                                  cudaMemcpyHostToDevice, stream));
  ATOM_CUDA_CHECK(cudaEventRecord(stage.copied, stream));
  return {};
}

}  // namespace atom::cuda
