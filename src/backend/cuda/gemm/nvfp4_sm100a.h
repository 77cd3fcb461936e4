// The NVFP4 GEMM by sm_100a's tensor cores; a build without that chip has none (no_sm100a.cpp).
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/gemm/gemm_args.h"

namespace atom::cuda {

// args as for launch_gemm, in nvfp4_sm100a_layout.h; y is f16 or f32, neither a split nor scratch
// is used. REQUIRES: a GPU of compute capability 10.0, and body columns.
void launch_nvfp4_sm100a(const GemmArgs& args, cudaStream_t stream);
// The same for a mixture of experts.
void launch_grouped_nvfp4_sm100a(const GemmArgs& args, const ExpertGroups& experts,
                                 cudaStream_t stream);

}  // namespace atom::cuda
