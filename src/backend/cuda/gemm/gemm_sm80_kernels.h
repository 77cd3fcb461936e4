// The GEMM kernels by mma.sync as host code sees them.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/gemm/gemm_args.h"

namespace atom::cuda {

enum class Sm80Format : uint8_t {
  kW4A8,   // w4a8_layout.h
  kW4A4,   // w4a4_s4_layout.h: one group a block. Chips from sm_90 on emulate its products, slowly
  kFp4,    // the same of E2M1 on both sides
  kNvFp4,  // nvfp4_layout.h
};

// The kernels alone, for what launch_gemm_sm80 lets through.
void start_gemm_sm80(Sm80Format format, const GemmArgs& args, cudaStream_t stream);
void start_grouped_gemm_sm80(Sm80Format format, const GemmArgs& args, const ExpertGroups& experts,
                             cudaStream_t stream);

}  // namespace atom::cuda
