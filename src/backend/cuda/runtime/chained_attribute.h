// What lets kernels start before the one ahead of them in the stream has ended (launch.cuh).
#pragma once

#include <cuda_runtime_api.h>

namespace atom::cuda {

// Switched off where the GPU does not have it: kernels then follow each other.
cudaLaunchAttribute chained_attribute();

// A multiprocessor divides its memory between L1 and shared memory while it is empty, by default as
// the kernel needs that comes first. Where all of it that can be is shared memory, the CTAs of the
// next kernel find room beside that one's.
void prefer_shared_memory(const void* kernel);

}  // namespace atom::cuda
