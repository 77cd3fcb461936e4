// gemm_w4a4_sm90a: y = dequant(x4 * w4^T), Atom's 4-bit integers or E2M1 on Hopper's e4m3 tensor
// cores.
//   x    [K/128][capacity][128] e4m3 sign and magnitude, swizzled; f32 scales a token a group; int8
//        outlier columns with a scale a token
//   w    64 x 128 blocks of 4-bit codes in wgmma's A order with f16 scales a row a group, then s8
//        outlier blocks with a scale a row (w4a4_layout.h)
//   y    [M, N] f16 or f32
// Work: a CTA's tile is 64 channels a warpgroup x tokens (pipeline.cuh, consumer.cuh):
//
//   HBM -> L2 -> shared: codes --LDS.128--> registers --masks, rotate, add--> e4m3 A operand
//                shared: x (swizzled) --------------------------------------> e4m3 B operand
//                                       sums of a group and up to 64 tokens
//                          values += sums * (row scale * token scale), f32
//
// Codes and their products are small integers, so that the tensor cores' 14-bit sums are exact: of
// a group, or with E2M1 of 64 columns at most. That leaves a multiplication and a multiply-add for
// each sum, two issue slots where the products of 128 columns take four, so the sums of one chunk
// of tokens are scaled while the products of the next run; the scales are in registers before the
// products are waited for.
// Requires: K padded to blocks with zero codes; sm_90a.   Rounds: sums of groups in f32; to y's
// type once.   Bound: HBM for few tokens; then the scaling and the board's power.
#pragma once

#include "backend/cuda/gemm/consumer.cuh"
#include "backend/cuda/gemm/w4a4_layout.h"

namespace atom::cuda::w4a4 {

using w4a8::kScaleBytes, w4a8::kScaleOffset;

// Sums of so many columns stay below the limit, whatever the codes: E2M1's reach 12 * 15 a column,
// and with E2M1 on both sides 128 columns would reach 18432.
template <CodeGrid kGrid>
inline constexpr int kExactColumns = kGrid == CodeGrid::kE2M1 ? 64 : 128;
static_assert(kExactColumns<CodeGrid::kInt> * 8 * kMostCode <= kMostGroupSum);
static_assert(kExactColumns<CodeGrid::kE2M1> * kMostE2M1 * kMostCode <= kMostGroupSum);

// The codes of a word as e4m3, of its own columns and of those 16 further.
template <CodeGrid kGrid>
struct Operands;

template <>
struct Operands<CodeGrid::kInt> {
  static constexpr float kWeightUnit = kUnit;
  // -(m + 1) where the sign is set.
  __device__ static uint32_t own(uint32_t word) {
    const uint32_t masked = word & 0x87878787u;
    return masked + ((masked & 0x80808080u) >> 7);
  }
  __device__ static uint32_t further(uint32_t word) { return own(__funnelshift_l(word, word, 4)); }
};

template <>
struct Operands<CodeGrid::kE2M1> {
  static constexpr float kWeightUnit = kE2M1Unit;
  __device__ static uint32_t own(uint32_t word) { return word & 0x9c9c9c9cu; }
  __device__ static uint32_t further(uint32_t word) {
    return (word << 2 & 0x8c8c8c8cu) | (word >> 2 & 0x10101010u);
  }
};

// One thread's part of a 64 x 128 body block.
template <int kGroups, CodeGrid kGrid>
struct Block {
  static constexpr float kScale = 1 / (kUnit * Operands<kGrid>::kWeightUnit);
  uint32_t a[4][4];             // the A fragments of its k-steps
  float row_scale[kGroups][2];  // of rows l/4 and l/4 + 8, for sums in the operands' units

  __device__ void load(const uint8_t* block, int thread) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint4 q = reinterpret_cast<const uint4*>(block + 2048 * half)[thread];
      const uint32_t words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[2 * half + i / 2][i % 2] = Operands<kGrid>::own(words[i]);
        a[2 * half + i / 2][2 + i % 2] = Operands<kGrid>::further(words[i]);
      }
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const auto pair = *reinterpret_cast<const __half2*>(block + kScaleOffset + g * kScaleBytes +
                                                          thread / 4 * 4);
      const float2 scales = __half22float2(pair);
      row_scale[g][0] = scales.x * kScale;
      row_scale[g][1] = scales.y * kScale;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) ptx::keep(a[k]);
  }
};

// The scales of a thread's tokens of a chunk, in the order of its sums' columns.
template <int kTokens>
struct TokenScales {
  float4 v[kTokens / 16];

  __device__ void load(uint32_t scales, int lane) {
#pragma unroll
    for (int i = 0; i < kTokens / 16; ++i) {
      v[i] = ptx::load_shared(scales + (16 * i + lane % 4 * 4) * 4);
    }
  }
  // Of columns 8j + 2(l%4) + i.
  __device__ float at(int j, int i) const {
    const float4& four = v[j / 2];
    return j % 2 == 0 ? (i == 0 ? four.x : four.y) : (i == 0 ? four.z : four.w);
  }
};

template <class K, CodeGrid kGrid>
class Math : public gemm::Consumer<K, Math<K, kGrid>> {
  using Base = gemm::Consumer<K, Math<K, kGrid>>;
  using Base::acts, Base::kAcc, Base::kRows, Base::release, Base::ring_, Base::sums_, Base::thread_,
      Base::wait_full, Base::weights;
  using typename Base::C, typename Base::L;
  static_assert(kRows == 1);
  static constexpr int kGroups = K::groups;
  // Two warpgroups leave registers for the sums of two units: one is scaled while the other's
  // products run. Three do that for each other, but where E2M1's sums are scaled twice as often,
  // and half as many at a time.
  static constexpr bool kHalves = C::warpgroups == 3 && kGrid == CodeGrid::kE2M1;
  static constexpr bool kOverlap = C::warpgroups == 2 || kHalves;
  static constexpr int kMostChunk = kHalves ? 32 : 64;
  // Tokens scaled at a time.
  static constexpr int kChunk = C::tokens < kMostChunk ? C::tokens : kMostChunk;
  static constexpr int kChunks = C::tokens / kChunk;
  // A unit is what is summed at a time: a group of one chunk, or a part of it.
  static constexpr int kWholeBlock = w4a8::kBlockCols / kExactColumns<kGrid>;
  static constexpr int kParts = kWholeBlock > kGroups ? kWholeBlock / kGroups : 1;
  static constexpr int kPasses = kGroups * kParts;  // of a chunk through a block's columns
  static constexpr int kUnits = kChunks * kPasses;  // of a block
  static constexpr int kSteps = 4 / kPasses;        // k-steps of a unit
  using Mma = ptx::WgmmaE4M3<kChunk>;
  // Told that a stage is the same in every lane, the compiler keeps descriptors in uniform
  // registers. That makes 128x128 and 192x64 3 and 8% faster, but 192x128 of integers 4% slower.
  static constexpr bool kUniform = kGrid == CodeGrid::kE2M1 || C::warpgroups * C::tokens < 384;
  static constexpr int kAtOnce = kOverlap && kUnits == 1 && C::ctas == 1 ? 2 : 1;  // blocks

 public:
  using Base::Base;

  // The scaled sums of `blocks` blocks.
  __device__ void body(int blocks) {
#pragma unroll 1
    for (; blocks >= kAtOnce; blocks -= kAtOnce) add_blocks<kAtOnce>();
    if (blocks > 0) add_blocks<1>();
  }
  template <int kCount>
  __device__ void to_float(const float (&sums)[1][kCount], float (&v)[1][kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[0][i] = sums[0][i];
  }

 private:
  // The last unit is waited for: products may not be in flight where the loop closes, or the
  // compiler serializes them.
  template <int kBlocks>
  __device__ void add_blocks() {
    Block<kGroups, kGrid> block[kBlocks];
    int stage[kBlocks] = {};
    float group_sums[kOverlap ? 2 : 1][kChunk / 2];
    TokenScales<kChunk> token_scales;
    // Unit i of all: of its sums, the group's part of the values.
    const auto scale = [&](int i) {
      const int b = i / kUnits, chunk = i % kUnits / kPasses, g = i % kPasses / kParts;
      const float* r = block[b].row_scale[g];
#pragma unroll
      for (int e = 0; e < kChunk / 2; ++e) {
        float& value = sums_[0][chunk * (kChunk / 2) + e];
        value = fmaf(group_sums[kOverlap ? i % 2 : 0][e],
                     token_scales.at(e / 4, e % 2) * r[e / 2 % 2], value);
      }
      // Not later: the products that follow write these sums.
#pragma unroll
      for (int e = 0; e < kChunk / 2; ++e) ptx::keep(sums_[0][chunk * (kChunk / 2) + e]);
      if (i % kUnits == kUnits - 1) release(stage[b]);
    };
#pragma unroll
    for (int i = 0; i < kBlocks * kUnits; ++i) {
      const int b = i / kUnits, chunk = i % kUnits / kPasses, g = i % kPasses / kParts;
      if (i % kUnits == 0) {
        wait_full();
        block[b].load(weights(0), thread_);
        stage[b] = kUniform ? __shfl_sync(0xffffffffu, ring_.stage, 0) : ring_.stage;
        ring_.advance();
      }
      const uint64_t x =
          ptx::swizzled_descriptor(this->shared() + L::kActs + stage[b] * L::kActBytes +
                                   chunk * kChunk * gemm::kActBlockBytes);
      ptx::wgmma_fence();
#pragma unroll
      for (int k = 0; k < kSteps; ++k) {
        const int step = i % kPasses * kSteps + k;
        Mma::issue(group_sums[kOverlap ? i % 2 : 0], block[b].a[step],
                   x + static_cast<uint64_t>(2 * step), k > 0);
      }
      ptx::wgmma_commit();
      if (kOverlap && i > 0) {
        ptx::wgmma_wait<1>();
        scale(i - 1);
      }
      // The parts of a group have its scales in common, and their products, which the compiler
      // keeps.
      if (i % kParts == 0) {
        token_scales.load(this->shared() + L::kTokenScales + stage[b] * L::kTokenScaleBytes +
                              g * L::kScaleRowBytes + chunk * kChunk * 4,
                          thread_ % 32);
      }
      if (!kOverlap || i + 1 == kBlocks * kUnits) {
        ptx::wgmma_wait<0>();
        scale(i);
      }
    }
  }
};

// Every group's sum is scaled as it is done. kGrid: of the weights.
template <CodeGrid kGrid>
struct Format {
  using Acc = float;
  static constexpr bool kTokenGroupScales = true, kRowScaleLast = false;
  static constexpr int kTokenStep = token_step(GemmFormat::kW4A4);
  static constexpr int kRowBlocks = 1, kActBlocks = 1;
  static constexpr bool kOutliers = true, kBodyOfNone = false;
  template <int kTokens>
  static constexpr int parts() {
    return 1;
  }
  template <int kGroups>
  static constexpr int block_bytes() {
    return w4a8::kScaleOffset + kGroups * w4a8::kScaleBytes;
  }
  template <class K>
  using Math = w4a4::Math<K, kGrid>;
};

}  // namespace atom::cuda::w4a4
