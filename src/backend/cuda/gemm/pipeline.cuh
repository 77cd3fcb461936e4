// The way of a GEMM's operands into shared memory: one thread fills a ring of stages with bulk
// copies, the math warps empty it.
//
//   stage   activations  [block] C::tokens x 128 bytes, swizzled
//           weights      blocks of the tile's channels (codes, then scales), or the same part of
//                        each with the scales it needs
//           token scales [group][C::tokens] f32, where the format has them
#pragma once

#include <type_traits>

#include "backend/cuda/experts/expert_tiles.cuh"
#include "backend/cuda/gemm/epilogue.cuh"
#include "backend/cuda/gemm/gemm_kernels.h"
#include "backend/cuda/gemm/schedule.cuh"
#include "backend/cuda/ptx/sync.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda::gemm {

using w4a8::kActBlockBytes;

// A Config as a type: kernels take types only. Each of the warpgroups has row_blocks of its own;
// cluster: CTAs that share a tile along K; share: CTAs of neighbouring channels that share the
// activations, each bringing a part of a stage's tokens to all of them.
template <int kWarpgroups, int kRowBlocks, int kTokens, int kStages, int kCtas, int kCluster = 1,
          int kShare = 1>
struct Tile {
  static constexpr int warpgroups = kWarpgroups, row_blocks = kRowBlocks, tokens = kTokens,
                       stages = kStages, ctas = kCtas;
  static constexpr int tile_blocks = warpgroups * row_blocks;  // of 64 channels
  static constexpr int cluster = kCluster, share = kShare;
  static_assert(kCluster == 1 || kShare == 1);
  // CTAs of a cluster that finish a slice of the tile's tokens, at least eight each.
  static constexpr int slices = kCluster < kTokens / 8 ? kCluster : kTokens / 8;
  static constexpr int slice_tokens = kTokens / slices;
};

// Everything a kernel is compiled for. Format: that of w4a8, w8a8, w4a4 or w4a16.
// kExperts: for the experts of a mixture instead of one matrix.
template <class F, class T, int kGroups, class O, bool kExperts = false>
struct Kernel {
  using Format = F;
  using C = T;
  using Out = O;
  static constexpr int groups = kGroups;  // a block
  static constexpr bool experts = kExperts;
};

// Shared memory of a CTA, in bytes from its 1024-aligned start.
template <class K>
struct Layout {
  using C = typename K::C;
  using Format = typename K::Format;
  static constexpr int kBlockBytes = Format::template block_bytes<K::groups>();
  static constexpr int kBlocks = C::tile_blocks / Format::kRowBlocks;  // over the tile's channels
  static constexpr int kParts = Format::template parts<C::tokens>();   // stages that a block takes
  static constexpr int kActBlocks = Format::kActBlocks / kParts;       // of a stage
  static constexpr int kPartBytes = [] {                               // of a block in a stage
    if constexpr (kParts == 1) {
      return kBlockBytes;
    } else {
      return Format::template part_bytes<K::groups>();
    }
  }();
  // The first part begins and the last one ends with the block.
  static constexpr int kPartStep = kParts == 1 ? 0 : (kBlockBytes - kPartBytes) / (kParts - 1);
  static_assert(C::tile_blocks % Format::kRowBlocks == 0);
  static_assert((kParts == 1 && kActBlocks == 1) || !Format::kOutliers);
  static constexpr int kWeightBytes = kBlocks * kPartBytes;  // of a stage
  static constexpr int kActBytes = kActBlocks * C::tokens * kActBlockBytes;
  static constexpr int kScaleRowBytes = K::Format::kTokenGroupScales ? C::tokens * 4 : 0;
  static constexpr int kTokenScaleBytes = K::groups * kScaleRowBytes;  // of a stage
  static constexpr int kActs = 0;
  static constexpr int kWeights = C::stages * kActBytes;
  static constexpr int kTokenScales = kWeights + C::stages * kWeightBytes;
  static constexpr int kStaging =
      (kTokenScales + C::stages * kTokenScaleBytes + 1023) / 1024 * 1024;
  // What a tile's end needs, for each warpgroup: its tokens' scales, outlier scales and sums; its
  // rows' scales and biases.
  static constexpr int kTokenBytes = 3 * C::slice_tokens * 4;
  static constexpr int kEndBytes = kTokenBytes + 2 * C::row_blocks * 64 * 4;
  // Sums from one other CTA of the cluster, for a slice: [warpgroup][row block][8 tokens][thread]
  // int4.
  static constexpr int kGiftBytes = C::tile_blocks * C::slice_tokens / 8 * 2048;
  static constexpr int kTokens =
      kStaging + C::warpgroups * EpilogueTile<typename K::Out, C::slice_tokens>::kBytes;
  static constexpr int kGifts = (kTokens + C::warpgroups * kEndBytes + 15) / 16 * 16;
  static constexpr int kFull = kGifts + (C::cluster - 1) * kGiftBytes;
  static constexpr int kEmpty = kFull + C::stages * 8;
  static constexpr int kGiven = kEmpty + C::stages * 8;  // all gifts are here
  static constexpr int kFirstTiles = kGiven + 8;         // of each expert
  static constexpr int kBytes = kFirstTiles + (K::experts ? (kMostExperts + 1) * 4 : 0);
  // A multiprocessor has 228 KB, of which each CTA costs one.
  static_assert(kBytes <= (228 << 10) / C::ctas - (1 << 10));
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
using TilesOf = std::conditional_t<K::experts, ExpertTiles<K::C::tokens, K::Format::kTokenStep>,
                                   MatrixTiles<K::C::tokens, K::C::share>>;
template <class K>
using ScheduleOf = std::conditional_t<K::C::cluster == 1, Schedule<TilesOf<K>>,
                                      ClusterSchedule<TilesOf<K>, K::C::cluster, K::C::slices>>;
template <class K>
__device__ ScheduleOf<K> make_schedule(const Params& p) {
  const auto cta = static_cast<int>(blockIdx.x) / K::C::share;
  if constexpr (K::experts) {
    const auto* first_tiles =
        reinterpret_cast<const int*>(shared_memory() + Layout<K>::kFirstTiles);
    return ScheduleOf<K>(TilesOf<K>(p.plan, p.experts, first_tiles), cta);
  } else {
    return ScheduleOf<K>(TilesOf<K>(p.plan), cta);
  }
}
// First token of what a CTA finishes of a tile.
template <class C>
__device__ int first_token(const Work& work) {
  const int slice = C::cluster == 1 ? 0 : static_cast<int>(blockIdx.x) % C::cluster;
  return work.token0 + slice * C::slice_tokens;
}

template <class K>
class Producer {
  using L = Layout<K>;
  using C = typename K::C;

 public:
  __device__ Producer(const Params& p, uint32_t shared) : p_(p), shared_(shared) {}

  // Brings body blocks' weights, which no kernel writes, before the kernel that makes the
  // activations has ended. Half a ring of them: the first activations queue behind what is on its
  // way already.
  __device__ void prefetch_weights() {
    ScheduleOf<K> schedule = make_schedule<K>(p_);
    for (Work work; schedule.next(work);) {
      choose_weights(work);
      for (int part = work.begin * L::kParts; part < work.end * L::kParts; ++part) {
        const int tokens = present(work.token0, C::tokens);
        fill_weights(work, part, ready_, tokens, L::kTokenScaleBytes > 0);
        if (++ready_ == (C::stages + 1) / 2) return;
      }
      if (work.finishes && p_.shape.outlier_blocks > 0) return;
    }
  }
  __device__ void run() {
    wait_for_previous();
    ScheduleOf<K> schedule = make_schedule<K>(p_);
    for (Work work; schedule.next(work);) {
      choose_weights(work);
#pragma unroll 1
      for (int part = work.begin * L::kParts; part < work.end * L::kParts; ++part) {
        fill(work, part, part * L::kActBlocks, work.token0, C::tokens, L::kTokenScaleBytes > 0);
      }
      if (!work.finishes) continue;
      for (int b = 0; b < p_.shape.outlier_blocks; ++b) {
        // Two outlier blocks of weights share one block of activations, which comes with the first.
        fill(work, p_.shape.body_blocks + b, p_.shape.body_blocks + b / 2, first_token<C>(work),
             b % 2 == 0 ? C::slice_tokens : 0, false);
      }
    }
  }

 private:
  __device__ void choose_weights(const Work& work) {
    const uint8_t* codes = p_.weights;
    if constexpr (K::experts) codes = p_.experts.w[work.expert].codes;
    const int64_t row_bytes = int64_t{p_.shape.blocks()} * L::kBlockBytes;
    const int last = (p_.row_blocks - 1) / K::Format::kRowBlocks;
#pragma unroll
    for (int i = 0; i < L::kBlocks; ++i) {
      weights_[i] = codes + min(work.tile_w * L::kBlocks + i, last) * row_bytes;
    }
  }
  // Of `tokens` tokens from token0 on those that there are, up to a whole step of the layout; what
  // lies behind them in shared memory stays as it was, in columns that nobody stores.
  __device__ int present(int token0, int tokens) const {
    constexpr int kStep = K::Format::kTokenStep;
    return max(min(tokens, (p_.out.tokens + kStep - 1) / kStep * kStep - token0), 0);
  }
  // The weights of a stage: a part, counted over all blocks. `tokens` and `scales`: what else the
  // stage will receive.
  __device__ void fill_weights(const Work& work, int part, int stage, int tokens, bool scales) {
    const uint32_t full = shared_ + L::kFull + stage * 8;
    ptx::barrier_expect(full, L::kWeightBytes + L::kActBlocks * tokens * kActBlockBytes +
                                  (scales ? K::groups * tokens * 4 : 0));
#pragma unroll
    for (int i = 0; i < L::kBlocks; ++i) {
      ptx::bulk_copy(
          shared_ + L::kWeights + stage * L::kWeightBytes + i * L::kPartBytes,
          weights_[i] + part / L::kParts * L::kBlockBytes + part % L::kParts * L::kPartStep,
          L::kPartBytes, full);
    }
  }
  // A stage: a part of the weights, blocks from act_block on of `tokens` tokens.
  __device__ void fill(const Work& work, int part, int act_block, int token0, int tokens,
                       bool scales) {
    const uint32_t full = shared_ + L::kFull + ring_.stage * 8;
    tokens = present(token0, tokens);
    if (ready_ > 0) {
      --ready_;
    } else {
      ptx::barrier_wait(shared_ + L::kEmpty + ring_.stage * 8, ring_.phase ^ 1);
      fill_weights(work, part, ring_.stage, tokens, scales);
    }
    fill_activations(act_block, token0, tokens, full);
    if (scales && tokens > 0) {
#pragma unroll
      for (int g = 0; g < K::groups; ++g) {
        const int64_t row = static_cast<int64_t>(part) * K::groups + g;
        ptx::bulk_copy(
            shared_ + L::kTokenScales + ring_.stage * L::kTokenScaleBytes + g * L::kScaleRowBytes,
            p_.x_scales + row * p_.capacity + token0, tokens * 4, full);
      }
    }
    ring_.advance();
  }

  __device__ void fill_activations(int act_block, int token0, int tokens, uint32_t full) const {
    const uint32_t to = shared_ + L::kActs + ring_.stage * L::kActBytes;
    const int8_t* from =
        p_.x + (static_cast<int64_t>(act_block) * p_.capacity + token0) * kActBlockBytes;
    if constexpr (C::share > 1) {
      static_assert(L::kActBlocks == 1);
      // The part of this CTA, for all.
      const int part = (tokens + 8 * C::share - 1) / (8 * C::share) * 8;
      const int first = static_cast<int>(blockIdx.x) % C::share * part;
      const int count = min(part, tokens - first);
      if (count > 0) {
        ptx::bulk_copy_to((1 << C::share) - 1, to + first * kActBlockBytes,
                          from + first * kActBlockBytes, count * kActBlockBytes, full);
      }
    } else if (tokens > 0) {
#pragma unroll
      for (int i = 0; i < L::kActBlocks; ++i) {
        ptx::bulk_copy(to + i * C::tokens * kActBlockBytes,
                       from + int64_t{i} * p_.capacity * kActBlockBytes, tokens * kActBlockBytes,
                       full);
      }
    }
  }

  const Params& p_;
  uint32_t shared_;
  const uint8_t* weights_[L::kBlocks];  // of the tile, from its first block on
  Ring<C::stages> ring_;
  int ready_ = 0;  // stages ahead that have their weights already
};

}  // namespace atom::cuda::gemm
