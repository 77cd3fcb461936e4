// Stores into the shared memory of other CTAs of a cluster that tell a barrier there of themselves.
#pragma once

#include <cstdint>

#include "backend/cuda/ptx/sync.cuh"

namespace atom::cuda::ptx {

// Addresses from address_in(), of one CTA. The bytes count towards what the barrier expects.
__device__ inline void send(uint32_t to, float value, uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(to),
      "r"(__float_as_uint(value)), "r"(barrier)
      : "memory");
}
__device__ inline void send(uint32_t to, float2 value, uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1, %2}, [%3];" ::
          "r"(to),
      "r"(__float_as_uint(value.x)), "r"(__float_as_uint(value.y)), "r"(barrier)
      : "memory");
}

}  // namespace atom::cuda::ptx
