// The warp-wide product of E2M1 numbers under E4M3 scales, one for 16 of them: NVFP4.
//
//     D[16, 8] += (A[16, 64] . SA[16, 4]) * (B[64, 8] . SB[4, 8])       f32 sums
//
// Lane l = 4g + c holds codes as mma_s4 has them, and in a word the four scales of
//   a  row g + 8(c%2), of k-step c/2         b  column g, of k-step c%2 (lanes 2, 3: not read)
// so that a word a lane has the scales of two k-steps of 64, of which the instruction is told one.
// One instruction on sm_120a. Elsewhere the same numbers: integer products of twice the numbers,
// four groups after one another, each scaled in f32 by the product of its scales, which is exact.
#pragma once

#include "backend/cuda/ptx/mma.cuh"
#include "tensor/packing.h"

namespace atom::cuda::ptx {

#if defined(__CUDA_ARCH_FEAT_SM120_ALL)

template <int kStep>
struct NvFp4Rows {
  uint32_t codes[4], scales;
  __device__ void set(const uint32_t* a, uint32_t s) {
#pragma unroll
    for (int i = 0; i < 4; ++i) codes[i] = a[i];
    scales = s;
  }
};
template <int kStep>
struct NvFp4Columns {
  uint32_t codes[2], scales;
  __device__ void set(const uint32_t* b, uint32_t s) {
    codes[0] = b[0];
    codes[1] = b[1];
    scales = s;
  }
};

template <int kStep>
__device__ inline void mma_nvfp4(float (&d)[4], const NvFp4Rows<kStep>& a,
                                 const NvFp4Columns<kStep>& b) {
  asm volatile(
      "mma.sync.aligned.kind::mxf4nvf4.block_scale.scale_vec::4X.m16n8k64.row.col.f32.e2m1.e2m1."
      "f32.ue4m3 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3}, "
      "{%10}, {0, %12}, {%11}, {0, %12};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a.codes[0]), "r"(a.codes[1]), "r"(a.codes[2]), "r"(a.codes[3]), "r"(b.codes[0]),
        "r"(b.codes[1]), "r"(a.scales), "r"(b.scales), "n"(kStep));
}

#else

namespace detail {

// Of the eight codes of either lane of a pair of the quad this lane's four, as bytes: columns of a
// group meet in an order that is the same for a and b.
__device__ inline uint32_t group_bytes(uint32_t codes, int pair) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t word = __shfl_sync(0xffffffffu, codes, (lane & ~3) | 2 * pair | (lane & 1));
  return e2m1_bytes(word >> (lane / 2 % 2 * 16));
}
__device__ inline void take_scales(float (&scales)[4][2], int i, uint32_t word) {
#pragma unroll
  for (int g = 0; g < 4; ++g) scales[g][i] = e4m3_value(static_cast<uint8_t>(word >> (8 * g)));
}

}  // namespace detail

template <int kStep>
struct NvFp4Rows {
  uint32_t bytes[4][2];  // of group, of rows g and g + 8
  float scales[4][2];
  __device__ void set(const uint32_t* a, uint32_t s) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int v = 0; v < 2; ++v) {
#pragma unroll
      for (int g = 0; g < 4; ++g) bytes[g][v] = detail::group_bytes(a[g / 2 * 2 + v], g % 2);
      const uint32_t word = __shfl_sync(0xffffffffu, s, (lane & ~3) | 2 * kStep | v);
      detail::take_scales(scales, v, word);
    }
  }
};
template <int kStep>
struct NvFp4Columns {
  uint32_t bytes[4];
  float scales[4][2];  // of columns 2c and 2c + 1
  __device__ void set(const uint32_t* b, uint32_t s) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int g = 0; g < 4; ++g) bytes[g] = detail::group_bytes(b[g / 2], g % 2);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t word = __shfl_sync(0xffffffffu, s, 4 * (2 * (lane % 4) + i) + kStep);
      detail::take_scales(scales, i, word);
    }
  }
};

template <int kStep>
__device__ inline void mma_nvfp4(float (&d)[4], const NvFp4Rows<kStep>& a,
                                 const NvFp4Columns<kStep>& b) {
  // The integer sum becomes a float without a conversion: it is added to that float's bits.
  constexpr float kBias = 12582912.0f;  // 1.5 * 2^23
  constexpr int32_t kBiasBits = 0x4b400000;
#pragma unroll
  for (int g = 0; g < 4; ++g) {
    int32_t sum[4] = {kBiasBits, kBiasBits, kBiasBits, kBiasBits};
    mma_s8_k16(sum, a.bytes[g], b.bytes[g]);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float number = (__int_as_float(sum[e]) - kBias) * 0.25f;
      d[e] = fmaf(number, a.scales[g][e / 2] * b.scales[g][e % 2], d[e]);
    }
  }
}

#endif

}  // namespace atom::cuda::ptx
