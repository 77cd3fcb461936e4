// y (+)= x w^T for every format: which kernel a linear runs on.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/linear/layout.h"
#include "backend/cuda/vendor/matmul.h"
#include "ops/backend.h"

namespace atom::cuda {

// The linear of ops/backend.h. All operands are the CUDA backend's own and made for `kernels`.
// gemm_workspace: scratch of gemm_workspace_bytes(), shared by the launches of one stream and
// zeroed once.
void launch_linear(const LinearArgs& args, const ChipKernels& kernels, Matmul& matmul,
                   void* gemm_workspace, cudaStream_t stream);

}  // namespace atom::cuda
