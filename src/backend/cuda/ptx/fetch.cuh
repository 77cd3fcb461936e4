// Loads that a thread asks for ahead of time.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace atom::cuda::ptx {

// A box of a matrix (runtime/tensor_map.h) from its first column and row on, into shared memory;
// what lies outside of the matrix reads as zeros, and all of the box counts for the barrier.
__device__ inline void box_load(uint32_t to, const CUtensorMap* map, int column, int row,
                                uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

// The line of 128 bytes around an address, into L2.
__device__ inline void prefetch_line(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address) : "memory");
}

}  // namespace atom::cuda::ptx
