// The launch attribute of kernels that may start before the one ahead of them in the stream has
// ended (launch.cuh).
#pragma once

#include <cuda_runtime_api.h>

namespace atom::cuda {

// Switched off where the GPU does not have it: kernels then follow each other.
cudaLaunchAttribute chained_attribute();

}  // namespace atom::cuda
