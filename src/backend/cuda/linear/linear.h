// y (+)= x w^T for every format: which kernel a linear runs on.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/gemm/gemm_sm80.h"
#include "backend/cuda/linear/expanded_linear.h"
#include "backend/cuda/linear/layout.h"
#include "backend/cuda/linear/vendor_linear.h"
#include "backend/cuda/objects.h"
#include "ops/backend.h"

namespace atom::cuda {

// Whether activations made for one format can feed a linear of another.
bool readable(const LinearFormat& acts, const LinearFormat& linear);

// What a GEMM works on where weights are blocks, but for the weights themselves.
GemmArgs gemm_args(const WeightView& w, const CudaActivations& x, int64_t tokens, CudaTensor& y,
                   void* workspace);
Sm80Format sm80_format(const WeightView& w);

// The linear of ops/backend.h. All operands are the CUDA backend's own and made for `kernels`.
// gemm_workspace: scratch of gemm_workspace_bytes(), shared by the launches of one stream and
// zeroed once. next: GemmArgs::next.
void launch_linear(const LinearArgs& args, const ChipKernels& kernels, const VendorProducts& vendor,
                   ExpandedLinear& expanded, void* gemm_workspace, std::span<const uint8_t> next,
                   cudaStream_t stream);

}  // namespace atom::cuda
