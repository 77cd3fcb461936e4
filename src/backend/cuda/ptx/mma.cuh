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
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

// D[16, 8] += A[16, 16] * B[16, 8], signed bytes with s32 sums. Lane l = 4g + c holds
//   a  (row g, columns 4c..+3), (g + 8, same)    b  (rows 4c..+3, column g)    d  as above
__device__ inline void mma_s8_k16(int32_t (&d)[4], const uint32_t (&a)[2], uint32_t b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
      "{%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b));
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

// Four E2M1 numbers, nibbles of the low 16 bits, as the bytes that twice each of them is.
__device__ inline uint32_t e2m1_bytes(uint32_t nibbles) {
  const uint32_t magnitudes = __byte_perm(0x03020100u, 0x0c080604u, nibbles & 0x7777u);
  uint32_t signs = nibbles & 0x8888u;
  signs = (signs | signs << 8) & 0x00880088u;
  signs = (signs | signs << 4) & 0x08080808u;
  const uint32_t negative = (signs >> 3) * 0xffu;
  return __vsub4(magnitudes ^ negative, negative);
}

// D[16, 8] += A[16, 64] * B[64, 8], E2M1 with f32 sums; fragments as those of mma_s4. One
// instruction on sm_120; other chips multiply bytes.
__device__ inline void mma_e2m1(float (&d)[4], const uint32_t* a, uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH_FEAT_SM120_ALL)
  constexpr uint32_t kOnes = 0x38383838u;  // block scales of e4m3, whichever threads give them
  asm volatile(
      "mma.sync.aligned.kind::mxf4nvf4.block_scale.scale_vec::4X.m16n8k64.row.col.f32.e2m1.e2m1."
      "f32.ue4m3 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3}, {%10}, {0, 0}, "
      "{%10}, {0, 0};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(kOnes));
#else
  // Columns meet in any order that is the same for a and b: here the low halves of words, then the
  // high ones.
  int32_t sums[4] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t bytes[4] = {e2m1_bytes(a[0] >> (16 * half)), e2m1_bytes(a[1] >> (16 * half)),
                               e2m1_bytes(a[2] >> (16 * half)), e2m1_bytes(a[3] >> (16 * half))};
    mma_s8<false>(sums, bytes, e2m1_bytes(b0 >> (16 * half)), e2m1_bytes(b1 >> (16 * half)));
  }
#pragma unroll
  for (int e = 0; e < 4; ++e) d[e] += 0.25f * static_cast<float>(sums[e]);
#endif
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
