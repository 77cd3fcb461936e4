// What the choice and the launch of all GEMMs on Hopper have in common.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/gemm/gemm_kernels.h"
#include "base/status.h"

namespace atom::cuda::gemm {

inline constexpr double kCyclesPerUs = 1800, kMemoryBytesPerCycle = 2150;

// The place of a shape's kernel in KernelEntry::functions.
constexpr int group_index(const w4a8::Shape& shape) {
  return shape.groups == 1 ? 0 : shape.groups == 2 ? 1 : 2;
}

// Cycles by the cost model, as far as the multiprocessors are concerned.
double tile_cycles(const Config& config, const SchedulePlan& plan, const w4a8::Shape& shape,
                   bool split);

// experts: of the kernels for them, or none. Error: kUnsupported where the kernel cannot run the
// problem.
Status start(const KernelEntry& entry, const GemmArgs& args, const ExpertGroups& experts,
             const SchedulePlan& plan, cudaStream_t stream);

}  // namespace atom::cuda::gemm
