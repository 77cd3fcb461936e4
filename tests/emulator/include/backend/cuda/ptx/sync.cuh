// In place of src/backend/cuda/ptx/sync.cuh.
#pragma once

#include "cuda_runtime.h"
#include "emulator/async_unit.h"

namespace atom::cuda::ptx {

using emulator::async_unit;

inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(static_cast<const uint8_t*>(p) - emulator::shared_memory());
}
inline void barrier_init(uint32_t barrier, uint32_t arrivals) {
  async_unit().init_barrier(barrier, arrivals);
}
inline void barrier_init_fence() {}
inline void barrier_arrive(uint32_t barrier) { async_unit().arrive(barrier); }
inline void barrier_expect(uint32_t barrier, uint32_t bytes) {
  async_unit().expect(barrier, bytes);
}
inline void barrier_wait(uint32_t barrier, uint32_t parity) { async_unit().wait(barrier, parity); }
inline void bulk_copy(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  async_unit().bulk_copy(to, from, bytes, barrier);
}
inline void copy16(uint32_t to, const void* from) { async_unit().copy16(to, from); }
inline void copy16_commit() { async_unit().commit_copies(); }
template <int kPending>
void copy16_wait_for() {
  async_unit().wait_for_copies(kPending);
}
inline bool elect_one() {
  emulator::sync_warp();
  return threadIdx.x % 32 == 0;
}

}  // namespace atom::cuda::ptx
