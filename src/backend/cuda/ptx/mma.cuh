// The warp-wide f16 matrix product and the 8x8 transpose.
#pragma once

#include <cstdint>

namespace atom::cuda::ptx {

// D[16, 8] += A[16, 16] * B[16, 8], f16 with f32 sums. Lane l = 4g + c holds
//   a  (row g, columns 2c, 2c+1), (g + 8, same), (g, columns + 8), (g + 8, columns + 8)
//   b  (rows 2c, 2c+1, column g), (rows + 8, column g)
//   d  (row g, columns 2c, 2c+1), (row g + 8, same)
__device__ inline void mma_f16(float* d, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                               uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// D[16, 8] += A[16, 32] * B[32, 8], bytes with s32 sums; A unsigned or signed. Lane l = 4g + c
// holds
//   a  (row g, columns 4c..+3), (g + 8, same), (g, columns + 16), (g + 8, columns + 16)
//   b  (rows 4c..+3, column g), (rows + 16, column g)         d  as above
template <bool kUnsignedA>
__device__ inline void mma_s8(int32_t* d, const uint32_t* a, uint32_t b0, uint32_t b1) {
  if constexpr (kUnsignedA) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// The same of signed bytes, D = A * B + c in every element.
__device__ inline void mma_s8_onto(int32_t (&d)[4], int32_t c, const uint32_t (&a)[4], uint32_t b0,
                                   uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%10, %10, %10, %10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c));
}

// D[16, 8] += A[16, 64] * B[64, 8], signed nibbles (low first) with s32 sums. Lane l = 4g + c holds
//   a  (row g, columns 8c..+7), (g + 8, same), (g, columns + 32), (g + 8, columns + 32)
//   b  (rows 8c..+7, column g), (rows + 32, column g)         d  as above
// One instruction on sm_80 to sm_89; later chips compile it to a routine of some 200.
__device__ inline void mma_s4(int32_t* d, const uint32_t* a, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8x8 matrices of 16-bit values, or 8 rows of 16 bytes; lane i gives the address of row i % 8
// of matrix i / 8 and gets 4 bytes of row i / 4 of each, the (i % 4)th.
__device__ inline void load_matrix(uint32_t address, uint32_t (&m)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(address)
               : "memory");
}

// Lane (g, c) gives elements (g, 2c) and (g, 2c+1) of an 8x8 matrix of halves and gets (2c, g) and
// (2c+1, g).
__device__ inline uint32_t transpose(uint32_t pair) {
  uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
  return out;
}

}  // namespace atom::cuda::ptx
