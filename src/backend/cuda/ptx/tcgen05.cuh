// sm_100's tensor cores (PTX ISA, "TensorCore 5th Generation Family Instructions"). Sums and scales
// live in tensor memory, 128 lanes x 512 columns of 32 bits; an address is the lane << 16 plus the
// column. One thread issues products and copies, which run behind it:
//   - a copy's bytes are there for the products issued after it, and products into the same sums,
//     of one kind, follow each other;
//   - nothing else is ordered but by a commit, which arrives at an mbarrier when all that its
//     thread issued before is done. Whoever then touches tensor memory passes tcgen05_fence_after()
//     first; whoever read it and tells others so passes tcgen05_fence_before().
#pragma once

#include <cstdint>

#include "backend/cuda/ptx/tcgen05_descriptors.h"

namespace atom::cuda::ptx {

// --- columns of tensor memory: whole warps, all of whose threads are here
// Waits until kColumns (a power of two, 32 at least) are free, and writes the address of the first
// one to shared memory. The same warp gives them back.
template <int kColumns>
__device__ inline void tcgen05_allocate(uint32_t to) {
  asm volatile("tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%0], %1;" ::"r"(to),
               "n"(kColumns)
               : "memory");
  asm volatile("tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;");
}
template <int kColumns>
__device__ inline void tcgen05_free(uint32_t columns) {
  asm volatile("tcgen05.dealloc.cta_group::1.sync.aligned.b32 %0, %1;" ::"r"(columns),
               "n"(kColumns));
}

// --- order
__device__ inline void tcgen05_fence_before() {
  asm volatile("tcgen05.fence::before_thread_sync;" ::: "memory");
}
__device__ inline void tcgen05_fence_after() {
  asm volatile("tcgen05.fence::after_thread_sync;" ::: "memory");
}
// The barrier gets one arrival when all products and copies of this thread are done.
__device__ inline void tcgen05_commit(uint32_t barrier) {
  asm volatile(
      "tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%0];" ::"r"(barrier)
      : "memory");
}

// --- copies and products: one thread
// 32 rows of 16 bytes of shared memory (a shared_matrix) into four columns, of lanes 0..31 and of
// each later 32 as well.
__device__ inline void tcgen05_copy_scales(uint32_t columns, uint64_t from) {
  asm volatile("tcgen05.cp.cta_group::1.32x128b.warpx4 [%0], %1;" ::"r"(columns), "l"(from)
               : "memory");
}
// sums[128, N] = (or, with add, +=) (a[128, 64] . a_scales) * (b[N, 64] . b_scales)^T, f32: a
// column each of N. Row r's four scales are the word in lane r % 32 of column r / 32.
// product: nvfp4_product().
__device__ inline void tcgen05_mma_nvfp4(uint32_t sums, uint64_t a, uint64_t b, uint32_t product,
                                         uint32_t a_scales, uint32_t b_scales, bool add) {
  asm volatile(
      "{\n.reg .pred add;\n"
      "setp.ne.u32 add, %6, 0;\n"
      "tcgen05.mma.cta_group::1.kind::mxf4nvf4.block_scale.scale_vec::4X [%0], %1, %2, %3, [%4], "
      "[%5], add;\n}" ::"r"(sums),
      "l"(a), "l"(b), "r"(product), "r"(a_scales), "r"(b_scales), "r"(uint32_t{add})
      : "memory");
}
// sums[128, N] = (or, with add, +=) a[128, 32] * b[N, 32]^T, s8 to s32. product: s8_product().
__device__ inline void tcgen05_mma_s8(uint32_t sums, uint64_t a, uint64_t b, uint32_t product,
                                      bool add) {
  asm volatile(
      "{\n.reg .pred add;\n"
      "setp.ne.u32 add, %4, 0;\n"
      "tcgen05.mma.cta_group::1.kind::i8 [%0], %1, %2, %3, add;\n}" ::"r"(sums),
      "l"(a), "l"(b), "r"(product), "r"(uint32_t{add})
      : "memory");
}

// --- loads: whole warps
// Sixteen columns from `columns` on, whose lane is the warp's first: 32 times its number in the
// CTA, modulo 4. Thread l gets lane l of these; the values are there on return.
__device__ inline void tcgen05_load(uint32_t columns, uint32_t (&v)[16]) {
  asm volatile(
      "tcgen05.ld.sync.aligned.32x32b.x16.b32 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, "
      "%12, %13, %14, %15}, [%16];\n"
      "tcgen05.wait::ld.sync.aligned;"
      : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]), "=r"(v[4]), "=r"(v[5]), "=r"(v[6]),
        "=r"(v[7]), "=r"(v[8]), "=r"(v[9]), "=r"(v[10]), "=r"(v[11]), "=r"(v[12]), "=r"(v[13]),
        "=r"(v[14]), "=r"(v[15])
      : "r"(columns)
      : "memory");
}

}  // namespace atom::cuda::ptx
