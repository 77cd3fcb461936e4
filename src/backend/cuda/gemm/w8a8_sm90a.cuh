// gemm_w8a8_sm90a: y = dequant(x8 * w8^T), one scale a row and one a token: the baseline that 4-bit
// weights are measured against, on the same way of the operands, schedule and end of a tile.
//   x    as w4a8 without outlier columns
//   w    64 x 128 blocks of s8, swizzled (w4a8_layout.h, wide); f32 row scales
//   y    [M, N] f16 or f32
// Work: as w4a8_sm90a.cuh; both operands of wgmma stay in shared memory.   Rounds: to y's type
// once, at the end.   Bound: HBM below about 128 tokens, then the tensor cores.
#pragma once

#include "backend/cuda/gemm/consumer.cuh"

namespace atom::cuda::w8a8 {

template <class K>
class Math : public gemm::Consumer<K, Math<K>> {
  using Base = gemm::Consumer<K, Math<K>>;
  using Base::acts, Base::kRows, Base::release, Base::ring_, Base::sums_, Base::thread_,
      Base::wait_full;
  using typename Base::C, typename Base::L;
  using Mma = ptx::WgmmaSharedS8<C::tokens>;

 public:
  using Base::Base;

  // The integer sums of `blocks` blocks: the products of one run while those of the one before end.
  __device__ void body(int blocks) {
    int before = -1;  // the previous block's stage
#pragma unroll 1
    for (; blocks > 0; --blocks) {
      wait_full();
      const uint64_t b = acts();
      uint64_t a[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        a[r] =
            ptx::swizzled_descriptor(this->shared() + L::kWeights + ring_.stage * L::kWeightBytes +
                                     (this->group_ * kRows + r) * L::kBlockBytes);
      }
      ptx::wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          Mma::issue(sums_[r], a[r] + static_cast<uint64_t>(2 * k),
                     b + static_cast<uint64_t>(2 * k), 1);
        }
      }
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();
      if (before >= 0) release(before);
      before = ring_.stage;
      ring_.advance();
    }
    ptx::wgmma_wait<0>();
    if (before >= 0) release(before);
  }

  template <int kCount>
  __device__ void to_float(const int32_t (&sums)[kRows][kCount], float (&v)[kRows][kCount]) const {
    const auto* pairs = reinterpret_cast<const float2*>(this->token_values()) + thread_ % 4;
#pragma unroll
    for (int j = 0; j < kCount / 4; ++j) {
      const float2 s = pairs[4 * j];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          v[r][4 * j + e] = static_cast<float>(sums[r][4 * j + e]) * (e % 2 ? s.y : s.x);
        }
      }
    }
  }
};

struct Format {
  using Acc = int32_t;
  static constexpr bool kTokenGroupScales = false, kRowScaleLast = true;
  static constexpr int kTokenStep = token_step(GemmFormat::kW8A8);
  static constexpr int kRowBlocks = 1, kActBlocks = 1;
  static constexpr bool kOutliers = true, kBodyOfNone = true;
  template <int kTokens>
  static constexpr int parts() {
    return 1;
  }
  template <int kGroups>
  static constexpr int block_bytes() {
    return w4a8::kWideBlockBytes;
  }
  template <class K>
  using Math = w8a8::Math<K>;
};

}  // namespace atom::cuda::w8a8
