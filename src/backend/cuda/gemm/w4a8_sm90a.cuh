// gemm_w4a8_sm90a: y = dequant(x8 * w4^T), two-level integer weights on Hopper's int8 tensor cores.
//   x    [K/128][capacity][128] s8, swizzled; one scale a token, a second for its outlier columns
//   w    64 x 128 blocks of u4 codes in wgmma's A order with integer scales, then s8 outlier blocks
//        (w4a8_layout.h); f32 row scales
//   y    [M, N] f16, bf16 or f32
// Work: a CTA's tile is 128*row_blocks channels x tokens (pipeline.cuh, consumer.cuh); two
// warpgroups each own 64*row_blocks channels:
//
//   HBM -> L2 -> shared: codes --LDS.128--> registers --and, shift, multiply-add--> u8 A operand
//                shared: x (swizzled) ----------------------------------------------> s8 B operand
//
// A code expands to q*s + z + 128 inside its byte (0..255 by the format), four at a time, so that
// the integer sum runs over all of K without touching the accumulators; 128 * sum(x) goes off at
// the end. The outlier columns have their own activation scale: after the body the sums become
// floats, and each 128 outlier columns are added as float(partial) * scale, 32 tokens at a time.
// Above 32 tokens the products are wgmma's, A from registers; below, mma.sync's. Requires: K padded
// to blocks with zero codes; sm_90a.   Rounds: to y's type once, at the end. Bound: HBM below about
// 64 tokens; then the latency of a warpgroup's products (64, 128 tokens) or the tensor cores and
// the board's power (256).
#pragma once

#include "backend/cuda/gemm/consumer.cuh"
#include "backend/cuda/gemm/w4a8_codes.cuh"

namespace atom::cuda::w4a8 {

template <class K>
class Math : public gemm::Consumer<K, Math<K>> {
  using Base = gemm::Consumer<K, Math<K>>;
  using Base::acts, Base::kAcc, Base::kRows, Base::release, Base::ring_, Base::sums_, Base::thread_,
      Base::wait_full, Base::weights;
  using typename Base::C, typename Base::L;
  using Mma = ptx::WgmmaU8S8<C::tokens>;
  // Few tokens: one warp's products at a time, without the latency of a warpgroup's.
  static constexpr bool kWarpMma = C::tokens <= 32;

 public:
  using Base::Base;

  // The integer sums of `blocks` blocks, or of those among them whose turn this is.
  __device__ void body(int blocks) {
    blocks = (blocks + C::turns - 1 - Base::turn()) / C::turns;
    if (C::turns > 1 && blocks == 0) return;
    if constexpr (C::tokens <= 16) {
      body_by_warps(blocks);
    } else if constexpr (kWarpMma) {
#pragma unroll 1
      for (; blocks > 0; --blocks) {
        wait_full();
        uint32_t a[16];
        Codes<K::groups> codes;
        codes.load(weights(0), thread_);
        unpack(codes, a);
        this->template multiply_warp<true, C::tokens>(sums_[0], a, ring_.stage, Base::turn());
        release(ring_.stage);
        ring_.advance();
      }
    } else if constexpr (C::tokens <= 160) {
      body_by_blocks(blocks);
    } else {
      body_by_steps(blocks);
    }
  }

 private:
  __device__ static void unpack(const Codes<K::groups>& codes, uint32_t (&a)[16]) {
#pragma unroll
    for (int k = 0; k < 4; ++k) codes.unpack(k, &a[4 * k]);
  }
  // A thread's codes and scales of the block in which they begin at these addresses.
  __device__ static void load(Codes<K::groups>& codes, uint32_t codes_at, uint32_t scales_at) {
    codes.q[0] = ptx::load_shared_words(codes_at);
    codes.q[1] = ptx::load_shared_words(codes_at + 2048);
#pragma unroll
    for (int g = 0; g < K::groups; ++g) {
      codes.pairs[g] = ptx::load_shared_word(scales_at + kScaleOffset + g * kScaleBytes);
    }
  }
  // By warps' products, with two sums each, so that few of them wait for the one before. A stage is
  // free as soon as it is in registers.
  __device__ void body_by_warps(int blocks) {
    constexpr int kRuns = C::tokens / 8;
    int32_t other[4 * kRuns] = {};
#pragma unroll 1
    for (; blocks > 0; --blocks) {
      wait_full();
      Codes<K::groups> codes;
      codes.load(weights(0), thread_);
      uint32_t b[kRuns][2][4];
#pragma unroll
      for (int j = 0; j < kRuns; ++j) {
        if (!this->has_tokens(j)) break;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          ptx::load_matrix(this->operand_address(ring_.stage, Base::turn(), j, half), b[j][half]);
        }
      }
      release(ring_.stage);
      ring_.advance();
      uint32_t a[16];
      unpack(codes, a);
#pragma unroll
      for (int j = 0; j < kRuns; ++j) {
        if (!this->has_tokens(j)) break;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          ptx::mma_s8<true>((k % 2 == 0 ? sums_[0] : other) + 4 * j, &a[4 * k],
                            b[j][k / 2][k % 2 * 2], b[j][k / 2][k % 2 * 2 + 1]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 4 * kRuns; ++i) sums_[0][i] += other[i];
  }
  // By warpgroup products; the fragments of a whole block are unpacked while the products of the
  // one before run.
  __device__ void body_by_blocks(int blocks) {
    // Made once: a block begins with loads from them.
    const uint32_t rows = Base::shared() + L::kWeights + Base::group_ * kRows * L::kRowBytes +
                          Base::turn() * L::kPartBytes;
    const uint32_t codes_at = ptx::opaque(rows + thread_ * 16),
                   scales_at = ptx::opaque(rows + thread_ / 4 * 4);
    uint32_t a[2][kRows][16];
    int before = -1;  // the previous block's stage
    const auto step = [&](int p) {
      const uint64_t b = ptx::uniform_descriptor(acts(Base::turn()));
      wait_full();
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        Codes<K::groups> codes;
        const uint32_t there = ring_.stage * L::kWeightBytes + r * L::kRowBytes;
        load(codes, codes_at + there, scales_at + there);
#pragma unroll
        for (int k = 0; k < 4; ++k) codes.unpack(k, &a[p][r][4 * k]);
        ptx::keep(a[p][r]);
      }
      const int stage = ring_.stage;
      ring_.advance();
      ptx::wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          Mma::issue(sums_[r], &a[p][r][4 * k], b + static_cast<uint64_t>(2 * k), 1);
        }
      }
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();
      if (before >= 0) release(before);
      before = stage;
    };
#pragma unroll 1
    for (;;) {
      step(0);
      if (--blocks == 0) break;
      step(1);
      if (--blocks == 0) break;
    }
    ptx::wgmma_wait<0>();
    release(before);
  }
  // The same where the sums leave fewer registers: a k-step and 64 rows at a time. A product holds
  // its warps until the one before has read its registers, so that only the unpacking of the next
  // fragment, done between two products, is hidden behind them. Fragments rotate through four
  // buffers.
  __device__ void body_by_steps(int blocks) {
    constexpr int kUnits = 4 * kRows;
    Codes<K::groups> codes[kRows], next[kRows];
    uint32_t a[4][4];
    wait_full();
#pragma unroll
    for (int r = 0; r < kRows; ++r) codes[r].load(weights(r), thread_);
    codes[0].unpack(0, a[0]);
    ptx::keep(a[0]);
    int before = 0;  // the previous block's stage
#pragma unroll 1
    for (int block = 0; block < blocks; ++block) {
      const bool last = block + 1 == blocks;
      const int stage = ring_.stage;
      const uint64_t b = acts();
      ring_.advance();
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        ptx::wgmma_fence();
        Mma::issue(sums_[u % kRows], a[u % 4], b + static_cast<uint64_t>(2 * (u / kRows)), 1);
        ptx::wgmma_commit();
        if (u == kUnits - 3 && !last) {
          wait_full();
#pragma unroll
          for (int r = 0; r < kRows; ++r) next[r].load(weights(r), thread_);
        }
        ptx::wgmma_wait<2>();
        if (u == 1 && block > 0) release(before);
        if (u + 1 < kUnits) {
          codes[(u + 1) % kRows].unpack((u + 1) / kRows, a[(u + 1) % 4]);
        } else {
#pragma unroll
          for (int r = 0; r < kRows; ++r) codes[r] = next[r];
          codes[0].unpack(0, a[0]);
        }
        ptx::keep(a[(u + 1) % 4]);
      }
      before = stage;
    }
    ptx::wgmma_wait<0>();
    release(before);
  }

 public:
  template <int kCount>
  __device__ void to_float(const int32_t (&sums)[kRows][kCount], float (&v)[kRows][kCount]) const {
    const auto* pairs = reinterpret_cast<const float2*>(this->token_values()) + thread_ % 4;
    const auto* x_sums = reinterpret_cast<const int2*>(pairs + 2 * kCount);
#pragma unroll
    for (int j = 0; j < kCount / 4; ++j) {
      const float2 s = pairs[4 * j];
      const int2 x_sum = x_sums[4 * j];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          v[r][4 * j + e] =
              static_cast<float>(sums[r][4 * j + e] - 128 * (e % 2 ? x_sum.y : x_sum.x)) *
              (e % 2 ? s.y : s.x);
        }
      }
    }
  }
};

// Integer sums over all of K; everything is scaled at the end.
struct Format {
  using Acc = int32_t;
  static constexpr bool kTokenGroupScales = false, kRowScaleLast = true;
  static constexpr int kTokenStep = token_step(GemmFormat::kW4A8);
  static constexpr int kRowBlocks = 1, kActBlocks = 1;
  static constexpr bool kOutliers = true, kBodyOfNone = false;
  template <int kTokens>
  static constexpr int parts() {
    return 1;
  }
  template <int kGroups>
  static constexpr int block_bytes() {
    return kScaleOffset + kGroups * kScaleBytes;
  }
  template <class K>
  using Math = w4a8::Math<K>;
};

}  // namespace atom::cuda::w4a8
