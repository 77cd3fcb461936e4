// The operators of mixtures of experts, as Backend has them. No size that a routing decides comes
// to the host, so that steps with experts can be recorded.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/experts/expert_tables.h"
#include "backend/cuda/experts/routing.h"
#include "backend/cuda/objects.h"

namespace atom::cuda {

void route(const CudaTensor& scores, int64_t tokens, const CudaRouting& routing,
           cudaStream_t stream);
void gather_routed(const CudaActivations& x, const CudaRouting& routing, int64_t tokens,
                   CudaActivations& y, cudaStream_t stream);
// workspace: the GEMMs'. Fails when memory is short. REQUIRES: a kernel was started behind
// route()'s, as gather_routed's: the GEMMs look at the routing before the kernel ahead of them has
// ended.
Status grouped_linear(const GroupedLinearArgs& args, ChipKernels chip, ExpertTables& tables,
                      void* workspace, cudaStream_t stream);
void combine(const CudaTensor& x, const CudaRouting& routing, int64_t tokens, CudaTensor& y,
             cudaStream_t stream);

}  // namespace atom::cuda
