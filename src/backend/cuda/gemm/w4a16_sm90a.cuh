// gemm_w4a16_sm90a: y = x16 * dequant(w4)^T, 4-bit weights in groups on Hopper's f16 tensor cores.
//   x    [K/64][capacity][64] f16, swizzled
//   w    128 x 128 blocks of u4 codes in the order of wgmma's A operand with f16 scales a row a
//        group (w4a16_layout.h); f32 row scales, powers of two
//   y    [M, N] f16 or f32
// Work: a CTA's tile is 128 or 256 channels x tokens (pipeline.cuh, consumer.cuh), of which each
// warpgroup owns 64 or 128 channels:
//
//   HBM -> L2 -> shared: codes --LDS.128--> registers --mask, multiply-add--> f16 A operand
//                shared: x (swizzled) ----------------------------------> f16 B operand
//
// Masked out where they stand, two codes are two subnormal halves, and one multiply-add makes both
// (code - 8) * scale: nine instructions for eight weights. A weight is rounded to f16 once, as a
// library that multiplies halves would want it; sums are the tensor cores' f32 over all of K.
// Above 16 tokens the products are wgmma's, A from registers; below, mma.sync's. Requires: K padded
// to blocks with zero scales; sm_90a.   Rounds: weights to f16, to y's type once.   Bound: HBM
// below about 16 tokens; then the latency of a warpgroup's products (32, 64), the tensor cores and
// the board's power.
#pragma once

#include "backend/cuda/gemm/consumer.cuh"
#include "backend/cuda/gemm/w4a16_layout.h"

namespace atom::cuda::w4a16 {

// Of one row and group, twice each in a word.
struct RowScale {
  __half2 low, high, zero;  // for codes in bits 5..2, in bits 9..6; what code 8 makes, negative

  __device__ void set(uint32_t scale_twice) {
    low = *reinterpret_cast<const __half2*>(&scale_twice);
    high = __hmul2(low, __float2half2_rn(kLowUnit / kHighUnit));
    zero = __hmul2(low, __float2half2_rn(-kZero * kLowUnit));
  }
};

// One thread's part of 64 rows of half a block.
template <int kGroups>
struct Codes {
  static constexpr int kHalfGroups = kGroups > 1 ? kGroups / 2 : 1;
  uint4 q;
  uint32_t pairs[kHalfGroups];  // scales of rows l/4 and l/4 + 8

  // row: 0 or 64.
  __device__ void load(const uint8_t* block, int half, int row, int thread) {
    q = reinterpret_cast<const uint4*>(block + code_offset(half, row, kGroups))[thread];
#pragma unroll
    for (int g = 0; g < kHalfGroups; ++g) {
      const int group = kGroups > 1 ? half * kHalfGroups + g : 0;
      pairs[g] = reinterpret_cast<const uint32_t*>(block + scale_offset(group, row))[thread / 4];
    }
  }
};

// The same on its way to fragments.
template <int kGroups>
struct Weights {
  static constexpr int kHalfGroups = Codes<kGroups>::kHalfGroups;
  uint4 q;
  RowScale scales[kHalfGroups][2];

  __device__ void set(const Codes<kGroups>& codes) {
    q = codes.q;
#pragma unroll
    for (int g = 0; g < kHalfGroups; ++g) {
      scales[g][0].set(__byte_perm(codes.pairs[g], 0, 0x1010));
      scales[g][1].set(__byte_perm(codes.pairs[g], 0, 0x3232));
    }
  }
  // The A fragment of k-step `step`.
  __device__ void unpack(int step, uint32_t* a) const {
    const uint32_t word = step == 0 ? q.x : step == 1 ? q.y : step == 2 ? q.z : q.w;
    const uint32_t turned = __byte_perm(word, 0, 0x0321);
    const RowScale* rows = scales[step * kHalfGroups / 4];
    a[0] = expand(word & 0x003c003cu, rows[0].low, rows[0].zero);
    a[1] = expand(turned & 0x003c003cu, rows[1].low, rows[1].zero);
    a[2] = expand(word & 0x03c003c0u, rows[0].high, rows[0].zero);
    a[3] = expand(turned & 0x03c003c0u, rows[1].high, rows[1].zero);
  }

 private:
  __device__ static uint32_t expand(uint32_t codes, __half2 scale, __half2 zero) {
    const __half2 w = __hfma2(*reinterpret_cast<const __half2*>(&codes), scale, zero);
    return *reinterpret_cast<const uint32_t*>(&w);
  }
};

template <class K>
class Math : public gemm::Consumer<K, Math<K>> {
  using Base = gemm::Consumer<K, Math<K>>;
  using Base::acts, Base::kAcc, Base::kRows, Base::release, Base::ring_, Base::sums_, Base::thread_,
      Base::wait_full, Base::weights;
  using typename Base::C, typename Base::L;
  // Few tokens: one warp's products at a time, without the latency of a warpgroup's.
  static constexpr bool kWarpMma = C::tokens <= 16;

 public:
  using Base::Base;

  // The sums of `blocks` blocks.
  __device__ void body(int blocks) {
    if constexpr (kWarpMma) {
      body_by_warps(blocks);
    } else if constexpr (C::tokens <= 128) {
      body_by_halves(blocks);
    } else {
      body_by_steps(blocks);
    }
  }
  template <int kCount>
  __device__ void to_float(const float (&sums)[kRows][kCount], float (&v)[kRows][kCount]) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) v[r][i] = sums[r][i];
    }
  }

 private:
  // Of rows r, half a block along K; where the halves are stages of their own, the stage has one.
  __device__ void load(Codes<K::groups>& codes, int r, int half) const {
    const int row_block = this->group_ * kRows + r;
    codes.load(weights(r) - half * L::kPartStep, half, row_block % 2 * 64, thread_);
  }
  // Products write the sums behind the compiler's back: what reads or defines them stays outside.
  __device__ void pin_sums() {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < kAcc; ++i) ptx::keep(sums_[r][i]);
    }
  }

  __device__ void body_by_warps(int blocks) {
    // Where a warp has few products at a time, every other k-step's sums are apart, so that no
    // product waits for the one before.
    constexpr bool kTwoChains = kRows == 1;
    float odd[kTwoChains ? kAcc : 4] = {};
#pragma unroll 1
    for (; blocks > 0; --blocks) {
      wait_full();
      Codes<K::groups> codes[2][kRows];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) load(codes[half][r], r, half);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t a[kRows][4][4];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          Weights<K::groups> weights;
          weights.set(codes[half][r]);
#pragma unroll
          for (int k = 0; k < 4; ++k) weights.unpack(k, a[r][k]);
        }
        this->template each_operand<C::tokens>(
            ring_.stage, half, [&](int j, int k, uint32_t b0, uint32_t b1) {
#pragma unroll
              for (int r = 0; r < kRows; ++r) {
                float* sums = kTwoChains && k % 2 == 1 ? odd : sums_[r];
                ptx::mma_f16(sums + 4 * j, a[r][k][0], a[r][k][1], a[r][k][2], a[r][k][3], b0, b1);
              }
            });
      }
      release(ring_.stage);
      ring_.advance();
    }
    if constexpr (kTwoChains) {
#pragma unroll
      for (int i = 0; i < kAcc; ++i) sums_[0][i] += odd[i];
    }
  }
  // By warpgroup products; the fragments of half a block are unpacked while the products of the
  // half before run.
  __device__ void body_by_halves(int blocks) {
    using Mma = ptx::WgmmaF16<C::tokens>;
    uint32_t a[2][kRows][16];
    Codes<K::groups> codes[kRows];
    int before = -1;  // the previous block's stage
    if (blocks > 0) {
      wait_full();
#pragma unroll
      for (int r = 0; r < kRows; ++r) load(codes[r], r, 0);
    }
    pin_sums();
#pragma unroll 1
    for (; blocks > 0; --blocks) {
      const int stage = ring_.stage;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          Weights<K::groups> weights;
          weights.set(codes[r]);
#pragma unroll
          for (int k = 0; k < 4; ++k) weights.unpack(k, &a[half][r][4 * k]);
          ptx::keep(a[half][r]);
        }
        const uint64_t b = acts(half);
        // The next half's codes are on their way while the products start.
        if (half == 1) ring_.advance();
        if (half == 0 || blocks > 1) {
          if (half == 1) wait_full();
#pragma unroll
          for (int r = 0; r < kRows; ++r) load(codes[r], r, 1 - half);
        }
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k) {
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            Mma::issue(sums_[r], &a[half][r][4 * k], b + static_cast<uint64_t>(2 * k), 1);
          }
        }
        ptx::wgmma_commit();
        ptx::wgmma_wait<1>();
        if (half == 0 && before >= 0) release(before);
      }
      before = stage;
    }
    ptx::wgmma_wait<0>();
    pin_sums();
    if (before >= 0) release(before);
  }
  // The same where the sums leave fewer registers, a k-step at a time and half a block a stage: see
  // w4a8_sm90a.cuh.
  __device__ void body_by_steps(int blocks) {
    using Mma = ptx::WgmmaF16<C::tokens>;
    static_assert(kRows == 1 && L::kParts == 2 && C::cluster == 1);
    Weights<K::groups> weights, next;
    uint32_t a[4][4];
    const auto fetch = [&](Weights<K::groups>& to, int half) {
      wait_full();
      Codes<K::groups> codes;
      load(codes, 0, half);
      to.set(codes);
    };
    fetch(weights, 0);
    weights.unpack(0, a[0]);
    ptx::keep(a[0]);
    int before = -1;  // the previous half's stage
    pin_sums();
#pragma unroll 1
    for (int halves = 2 * blocks, i = 0; i < halves; ++i) {
      const int stage = ring_.stage;
      const uint64_t b = acts();
      ring_.advance();
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        ptx::wgmma_fence();
        Mma::issue(sums_[0], a[k], b + static_cast<uint64_t>(2 * k), 1);
        ptx::wgmma_commit();
        if (k == 1 && i + 1 < halves) fetch(next, (i + 1) % 2);
        ptx::wgmma_wait<2>();
        if (k == 1 && before >= 0) release(before);
        if (k + 1 < 4) {
          weights.unpack(k + 1, a[k + 1]);
        } else {
          weights = next;
          weights.unpack(0, a[0]);
        }
        ptx::keep(a[(k + 1) % 4]);
      }
      before = stage;
    }
    ptx::wgmma_wait<0>();
    pin_sums();
    release(before);
  }
};

// Sums over all of K; the rows' powers of two come last.
struct Format {
  using Acc = float;
  static constexpr bool kTokenGroupScales = false, kRowScaleLast = true;
  static constexpr int kTokenStep = token_step(GemmFormat::kW4A16);
  static constexpr int kRowBlocks = 2, kActBlocks = 2;
  static constexpr bool kOutliers = false, kBodyOfNone = true;
  // Halves of blocks where whole ones would leave room for two stages.
  template <int kTokens>
  static constexpr int parts() {
    return kTokens > 128 ? 2 : 1;
  }
  template <int kGroups>
  static constexpr int block_bytes() {
    return w4a16::block_bytes(kGroups);
  }
  template <int kGroups>
  static constexpr int part_bytes() {
    return half_bytes(kGroups);
  }
  template <class K>
  using Math = w4a16::Math<K>;
};

}  // namespace atom::cuda::w4a16
