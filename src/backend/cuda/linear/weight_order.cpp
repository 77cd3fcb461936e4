#include "backend/cuda/linear/weight_order.h"

namespace atom::cuda {

std::span<const uint8_t> WeightOrder::after(const CudaLinear& linear) {
  if (at_ < order_.size() && order_[at_].serial != linear.serial()) order_.resize(at_);
  if (at_ == order_.size()) order_.push_back({linear.serial(), linear.blocks()});
  if (++at_ == order_.size()) return {};
  const auto next = order_[at_].blocks.lock();
  return next == nullptr ? std::span<const uint8_t>() : *next;
}

}  // namespace atom::cuda
