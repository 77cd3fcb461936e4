// In place of src/backend/cuda/runtime/launch.cuh: kernels run when they are launched, one after
// another.
#pragma once

#include "cuda_runtime.h"
#include "emulator/cta.h"

namespace atom::cuda {

inline uint8_t* dynamic_shared() { return emulator::shared_memory(); }
inline void let_next_start() {}
inline void wait_for_previous() {}

template <class Params>
void launch(void (*kernel)(Params), dim3 grid, int threads, int64_t shared_bytes,
            const Params& params, cudaStream_t) {
  emulator::run_grid({grid.x, grid.y, grid.z}, threads, shared_bytes, [&] { kernel(params); });
}
template <class Params>
void launch_chained(void (*kernel)(Params), dim3 grid, int threads, int64_t shared_bytes,
                    const Params& params, cudaStream_t stream) {
  launch(kernel, grid, threads, shared_bytes, params, stream);
}

inline unsigned blocks_for(int64_t count, int64_t each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

}  // namespace atom::cuda
