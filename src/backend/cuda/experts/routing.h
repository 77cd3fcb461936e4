// A routing in GPU memory: which experts the tokens of a batch go through.
#pragma once

#include <memory>

#include "backend/cuda/experts/routing_view.h"
#include "backend/cuda/runtime/device.h"
#include "ops/backend.h"

namespace atom::cuda {

class CudaRouting final : public Routing {
 public:
  // Fails for more than kMostExperts and when GPU memory is short.
  static Result<std::unique_ptr<CudaRouting>> create(int64_t experts, int64_t active,
                                                     int64_t max_tokens);

  int64_t experts() const override { return view_.experts; }
  int64_t active() const override { return view_.active; }
  int64_t max_tokens() const override { return max_tokens_; }
  const RoutingView& view() const { return view_; }
  // What the stream's operators have made of it.
  HostRouting to_host(int64_t tokens, cudaStream_t stream) const;

 private:
  CudaRouting() = default;

  RoutingView view_;
  int64_t max_tokens_ = 0;
  DeviceArray<int32_t> chosen_, offsets_, tokens_, rows_;
  DeviceArray<float> weights_;
};

inline const CudaRouting& cast(const Routing& routing) {
  return static_cast<const CudaRouting&>(routing);
}

}  // namespace atom::cuda
