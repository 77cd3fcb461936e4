// The weights of a layer's experts side by side in GPU memory, for kernels that pick one by number.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <vector>

#include "backend/cuda/linear/weight_view.h"
#include "backend/cuda/runtime/device.h"
#include "ops/backend.h"

namespace atom::cuda {

// Made at the experts' first use and kept: a few kilobytes a layer.
class ExpertTables {
 public:
  // [E] views in GPU memory. Fails when memory is short.
  Result<const WeightView*> find(std::span<const std::unique_ptr<const LinearWeights>> experts);

 private:
  std::map<std::vector<uint64_t>, DeviceArray<WeightView>> tables_;  // by serial numbers
};

}  // namespace atom::cuda
