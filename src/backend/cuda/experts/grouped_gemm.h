// Hopper's GEMMs of a mixture of experts: one launch for all, over the tiles of experts that tokens
// were sent to (expert_tiles.cuh).
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/gemm/gemm.h"

namespace atom::cuda {

// Kernels in the format's table, and a short name of each.
int grouped_gemm_kernel_count(GemmFormat format);
const char* grouped_gemm_kernel_name(GemmFormat format, int kernel);
// The fastest choice by the cost model, for tokens that are spread evenly.
GemmChoice choose_grouped_gemm(const GemmArgs& args, const ExpertGroups& experts);
// y is f16 or f32, and nothing is added to it. Error: kUnsupported where the kernel cannot run the
// problem.
Status launch_grouped_gemm(const GemmArgs& args, const ExpertGroups& experts, GemmChoice choice,
                           cudaStream_t stream);

}  // namespace atom::cuda
