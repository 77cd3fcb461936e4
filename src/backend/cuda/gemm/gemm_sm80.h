// GEMMs for every chip from sm_80 on, by mma.sync and plain asynchronous copies: where INT4 tensor
// cores exist (sm_80 to sm_89) and wherever no kernel of the chip's own is.
#pragma once

#include "backend/cuda/gemm/gemm_sm80_kernels.h"
#include "base/status.h"

namespace atom::cuda {

// args as for launch_gemm; y is f16 or f32, and neither a split nor scratch is used. Error:
// kUnsupported for other outputs and groups.
Status launch_gemm_sm80(Sm80Format format, const GemmArgs& args, cudaStream_t stream);
// The same for a mixture of experts.
Status launch_grouped_gemm_sm80(Sm80Format format, const GemmArgs& args,
                                const ExpertGroups& experts, cudaStream_t stream);

}  // namespace atom::cuda
