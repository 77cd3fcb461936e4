#include "backend/cuda/experts/routing.h"

namespace atom::cuda {

Result<std::unique_ptr<CudaRouting>> CudaRouting::create(int64_t experts, int64_t active,
                                                         int64_t max_tokens) {
  if (experts > kMostExperts) {
    return error(ErrorCode::kUnsupported, "device 'cuda': a mixture of {} experts; at most {}",
                 experts, kMostExperts);
  }
  ATOM_CHECK(active >= 1 && active <= experts && max_tokens >= 0, "a token needs an expert");
  if (max_tokens > INT32_MAX / active) {
    return error(ErrorCode::kUnsupported,
                 "device 'cuda': a routing of {} tokens to {} experts each", max_tokens, active);
  }
  std::unique_ptr<CudaRouting> routing(new CudaRouting);
  routing->max_tokens_ = max_tokens;
  const int64_t rows = max_tokens * active;
  routing->chosen_ = ATOM_TRY(DeviceArray<int32_t>::allocate(rows));
  routing->offsets_ = ATOM_TRY(DeviceArray<int32_t>::allocate(experts + 1));
  routing->tokens_ = ATOM_TRY(DeviceArray<int32_t>::allocate(rows));
  routing->rows_ = ATOM_TRY(DeviceArray<int32_t>::allocate(rows));
  routing->weights_ = ATOM_TRY(DeviceArray<float>::allocate(rows));
  routing->view_ = {.experts = static_cast<int>(experts),
                    .active = static_cast<int>(active),
                    .chosen = routing->chosen_.data(),
                    .offsets = routing->offsets_.data(),
                    .tokens = routing->tokens_.data(),
                    .rows = routing->rows_.data(),
                    .weights = routing->weights_.data()};
  return routing;
}

HostRouting CudaRouting::to_host(int64_t tokens, cudaStream_t stream) const {
  ATOM_CHECK(tokens <= max_tokens_, "read past the end");
  ATOM_CUDA_CHECK(cudaStreamSynchronize(stream));
  const int64_t rows = tokens * active();
  return {.offsets = offsets_.to_host(),
          .tokens = tokens_.to_host(rows),
          .rows = rows_.to_host(rows),
          .weights = weights_.to_host(rows)};
}

}  // namespace atom::cuda
