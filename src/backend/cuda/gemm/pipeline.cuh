// The way of a GEMM's operands into shared memory: one thread fills a ring of stages with bulk
// copies, the math warps empty it.
//
//   stage   activations  C::tokens x 128 bytes, swizzled
//           weights      2 * C::row_blocks blocks of 64 channels (codes, then scales)
//           token scales [group][C::tokens] f32, where the format has them
#pragma once

#include "backend/cuda/gemm/epilogue.cuh"
#include "backend/cuda/gemm/gemm_kernels.h"
#include "backend/cuda/gemm/schedule.cuh"
#include "backend/cuda/ptx/sync.cuh"

namespace atom::cuda::gemm {

using w4a8::kActBlockBytes;
using w4a8::kScaleBytes;
using w4a8::kScaleOffset;

// A Config as a type: kernels take types only.
template <int kRowBlocks, int kTokens, int kStages, int kCtas>
struct Tile {
  static constexpr int row_blocks = kRowBlocks, tokens = kTokens, stages = kStages, ctas = kCtas;
};

// Everything a kernel is compiled for. Format: w4a8::Format or w4a4::Format.
template <class F, class T, int kGroups, class O>
struct Kernel {
  using Format = F;
  using C = T;
  using Out = O;
  static constexpr int groups = kGroups;  // a block
};

// Shared memory of a CTA, in bytes from its 1024-aligned start.
template <class K>
struct Layout {
  using C = typename K::C;
  static constexpr int kBlockBytes = kScaleOffset + K::groups * kScaleBytes;
  static constexpr int kWeightBytes = 2 * C::row_blocks * kBlockBytes;  // of a stage
  static constexpr int kActBytes = C::tokens * kActBlockBytes;          // of a stage
  static constexpr int kScaleRowBytes = K::Format::kTokenGroupScales ? C::tokens * 4 : 0;
  static constexpr int kTokenScaleBytes = K::groups * kScaleRowBytes;  // of a stage
  static constexpr int kActs = 0;
  static constexpr int kWeights = C::stages * kActBytes;
  static constexpr int kTokenScales = kWeights + C::stages * kWeightBytes;
  static constexpr int kStaging =
      (kTokenScales + C::stages * kTokenScaleBytes + 1023) / 1024 * 1024;
  // The tokens' scales, outlier scales and sums, for each warpgroup.
  static constexpr int kTokenBytes = 3 * C::tokens * 4;
  static constexpr int kTokens = kStaging + 2 * EpilogueTile<typename K::Out, C::tokens>::kBytes;
  static constexpr int kFull = kTokens + 2 * kTokenBytes;
  static constexpr int kEmpty = kFull + C::stages * 8;
  static constexpr int kBytes = kEmpty + C::stages * 8;
};

// The start of the CTA's shared memory: a constant, which costs no register.
__device__ inline uint8_t* shared_memory() {
  extern __shared__ __align__(1024) uint8_t memory[];
  return memory;
}

// A position in the ring of stages.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t phase = 0;
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

template <class K>
__device__ void produce(const Params& p, uint32_t shared) {
  using L = Layout<K>;
  using C = typename K::C;
  Schedule schedule(p.plan, static_cast<int>(blockIdx.x));
  Ring<C::stages> ring;
  for (Work work; schedule.next(work);) {
    const int token0 = work.tile_t * C::tokens;
    // The last tile may reach beyond the buffers.
    const int tokens = min(C::tokens, p.capacity - token0);
    const int end = work.end == p.plan.blocks ? p.shape.blocks() : work.end;
    for (int b = work.begin; b < end; ++b, ring.advance()) {
      const uint32_t full = shared + L::kFull + ring.stage * 8;
      ptx::barrier_wait(shared + L::kEmpty + ring.stage * 8, ring.phase ^ 1);
      // Two outlier blocks of weights share one block of activations, which comes with the first.
      const int outlier = b - p.shape.body_blocks;
      const bool acts = outlier < 0 || outlier % 2 == 0;
      const bool scales = L::kTokenScaleBytes > 0 && outlier < 0;
      const int act_block = outlier < 0 ? b : p.shape.body_blocks + outlier / 2;
      ptx::barrier_expect(full, L::kWeightBytes + (acts ? tokens * kActBlockBytes : 0) +
                                    (scales ? K::groups * tokens * 4 : 0));
#pragma unroll
      for (int i = 0; i < 2 * C::row_blocks; ++i) {
        const int row_block = min(work.tile_w * 2 * C::row_blocks + i, p.row_blocks - 1);
        ptx::bulk_copy(
            shared + L::kWeights + ring.stage * L::kWeightBytes + i * L::kBlockBytes,
            p.weights + (static_cast<int64_t>(row_block) * p.shape.blocks() + b) * L::kBlockBytes,
            L::kBlockBytes, full);
      }
      if (scales) {
#pragma unroll
        for (int g = 0; g < K::groups; ++g) {
          const int64_t row = static_cast<int64_t>(b) * K::groups + g;
          ptx::bulk_copy(
              shared + L::kTokenScales + ring.stage * L::kTokenScaleBytes + g * L::kScaleRowBytes,
              p.x_scales + row * p.capacity + token0, tokens * 4, full);
        }
      }
      if (!acts) continue;
      const int64_t row = static_cast<int64_t>(act_block) * p.capacity + token0;
      ptx::bulk_copy(shared + L::kActs + ring.stage * L::kActBytes, p.x + row * kActBlockBytes,
                     tokens * kActBlockBytes, full);
    }
  }
}

}  // namespace atom::cuda::gemm
