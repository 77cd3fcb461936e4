// In place of src/backend/cuda/ptx/tcgen05.cuh.
#pragma once

#include "backend/cuda/ptx/tcgen05_descriptors.h"
#include "cuda_runtime.h"
#include "emulator/async_unit.h"

namespace atom::cuda::ptx {

using emulator::async_unit;

template <int kColumns>
void tcgen05_allocate(uint32_t to) {
  emulator::sync_warp();
  if (threadIdx.x % 32 == 0) async_unit().allocate(to, kColumns);
}
template <int kColumns>
void tcgen05_free(uint32_t columns) {
  emulator::sync_warp();
  if (threadIdx.x % 32 == 0) async_unit().free(columns, kColumns);
}
inline void tcgen05_fence_before() { async_unit().fence_before(); }
inline void tcgen05_fence_after() { async_unit().fence_after(); }
inline void tcgen05_commit(uint32_t barrier) { async_unit().commit(barrier); }
inline void tcgen05_copy_scales(uint32_t columns, uint64_t from) {
  async_unit().copy_scales(columns, from);
}
inline void tcgen05_mma_nvfp4(uint32_t sums, uint64_t a, uint64_t b, uint32_t product,
                              uint32_t a_scales, uint32_t b_scales, bool add) {
  async_unit().multiply_nvfp4(sums, a, b, product, a_scales, b_scales, add);
}
inline void tcgen05_mma_s8(uint32_t sums, uint64_t a, uint64_t b, uint32_t product, bool add) {
  async_unit().multiply_s8(sums, a, b, product, add);
}
template <int kCount>
void tcgen05_load(uint32_t columns, uint32_t (&values)[kCount]) {
  emulator::sync_warp();
  async_unit().load(columns, values, kCount);
}

}  // namespace atom::cuda::ptx
