#include "backend/cuda/experts/expert_tables.h"

#include "backend/cuda/objects.h"

namespace atom::cuda {

Result<const WeightView*> ExpertTables::find(
    std::span<const std::unique_ptr<const LinearWeights>> experts) {
  std::vector<uint64_t> serials;
  std::vector<WeightView> views;
  for (const auto& expert : experts) {
    const CudaLinear& linear = cast(*expert);
    serials.push_back(linear.serial());
    views.push_back(linear.view());
  }
  auto found = tables_.find(serials);
  if (found == tables_.end()) {
    auto table = ATOM_TRY(DeviceArray<WeightView>::copy_of(views));
    found = tables_.emplace(std::move(serials), std::move(table)).first;
  }
  return found->second.data();
}

}  // namespace atom::cuda
