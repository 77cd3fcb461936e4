// A step's output on its way to the host, while the host goes on.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "backend/cuda/objects.h"
#include "backend/cuda/runtime/device.h"
#include "backend/cuda/runtime/upload.h"
#include "ops/backend.h"

namespace atom::cuda {

class CudaTokenIds final : public TokenIds {
 public:
  static Result<std::unique_ptr<CudaTokenIds>> create(int64_t size);
  int64_t size() const override { return ids_.size(); }

  int32_t* data() { return ids_.data(); }
  const int32_t* data() const { return ids_.data(); }
  uint64_t serial() const { return serial_; }

 private:
  CudaTokenIds() = default;
  DeviceArray<int32_t> ids_;
  uint64_t serial_ = next_serial();
};

inline const CudaTokenIds& cast(const TokenIds& ids) {
  return static_cast<const CudaTokenIds&>(ids);
}

class CudaReadback final : public StepReadback {
 public:
  // Takes the memory that logits of so many rows need.
  static Result<std::unique_ptr<CudaReadback>> create(int64_t rows, int64_t vocab);
  CudaReadback(const CudaReadback&) = delete;
  CudaReadback& operator=(const CudaReadback&) = delete;
  ~CudaReadback() override;

  // Around a step's operators: what they leave is copied after them.
  void begin(cudaStream_t stream);
  void end(const StepArgs& args, cudaStream_t stream);
  StepOutput wait() override;

 private:
  CudaReadback() = default;
  PinnedBuffer chosen_, logits_;
  int64_t rows_ = 0, capacity_ = 0;  // capacity: floats
  size_t chosen_count_ = 0, logit_count_ = 0;
  cudaEvent_t began_ = nullptr, ran_ = nullptr, copied_ = nullptr;
};

}  // namespace atom::cuda
