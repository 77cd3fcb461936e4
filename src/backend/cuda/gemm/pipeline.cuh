// The way of a GEMM's operands into shared memory: a thread fills a ring of stages with bulk
// copies, or two do, one with weights and one with activations; the math warps empty it.
//
//   stage   activations  [block] C::tokens x 128 bytes, swizzled
//           weights      [64 or 128 channels][block] (codes, then scales), or the same part of
//                        each with the scales it needs
//           token scales [group][C::tokens] f32, where the format has them
#pragma once

#include <type_traits>

#include "backend/cuda/experts/expert_tiles.cuh"
#include "backend/cuda/gemm/epilogue.cuh"
#include "backend/cuda/gemm/gemm_kernels.h"
#include "backend/cuda/gemm/schedule.cuh"
#include "backend/cuda/ptx/fetch.cuh"
#include "backend/cuda/ptx/sync.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda::gemm {

using w4a8::kActBlockBytes;

// Tokens of a slice that one product with the outliers takes, which costs some cycles beside what
// it multiplies: the most, up to `most`, that divide the slice.
constexpr int outlier_piece(int slice_tokens, int most) {
  int piece = slice_tokens < most ? slice_tokens : most;
  while (slice_tokens % piece != 0) piece -= 16;
  return piece;
}

// A Config as a type: kernels take types only. Each of the warpgroups has row_blocks of its own;
// cluster: CTAs that share a tile along K; share: CTAs of neighbouring channels that share the
// activations, each bringing a part of a stage's tokens to all of them; turns: warpgroups of a CTA
// that take turns at a stage's blocks along K, of which it has as many.
template <int kWarpgroups, int kRowBlocks, int kTokens, int kStages, int kCtas, int kCluster = 1,
          int kShare = 1, int kTurns = 1>
struct Tile {
  static constexpr int warpgroups = kWarpgroups, row_blocks = kRowBlocks, tokens = kTokens,
                       stages = kStages, ctas = kCtas;
  static constexpr int tile_blocks = warpgroups * row_blocks;  // of 64 channels
  static constexpr int cluster = kCluster, share = kShare, turns = kTurns;
  static constexpr int math_threads = warpgroups * turns * 128;
  static constexpr int givers = cluster * turns;  // of sums of a tile
  // Weights and activations do not wait for each other, and a block of 128 x 128 is multiplied
  // sooner than one thread has asked for all of it.
  static constexpr int producers = ctas == 1 ? 2 : 1;
  static_assert(kCluster == 1 || kShare == 1);
  static_assert(kTurns == 1 || (kCluster > 1 && producers == 2));
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
  static constexpr int kActBlocks = Format::kActBlocks / kParts;       // of a part
  static constexpr int kPartBytes = [] {                               // of a block
    if constexpr (kParts == 1) {
      return kBlockBytes;
    } else {
      return Format::template part_bytes<K::groups>();
    }
  }();
  // The first part begins and the last one ends with the block.
  static constexpr int kPartStep = kParts == 1 ? 0 : (kBlockBytes - kPartBytes) / (kParts - 1);
  static_assert(C::tile_blocks % Format::kRowBlocks == 0);
  static_assert((kParts == 1 && kActBlocks == 1) || (!Format::kOutliers && C::turns == 1));
  static constexpr int kRowBytes = C::turns * kPartBytes;   // of 64 or 128 channels in a stage
  static constexpr int kWeightBytes = kBlocks * kRowBytes;  // of a stage
  static constexpr int kActBytes = C::turns * kActBlocks * C::tokens * kActBlockBytes;
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
  // Sums from another giver of the cluster, for a slice: [warpgroup][row block][8 tokens][thread]
  // int4.
  static constexpr int kGiftBytes = C::tile_blocks * C::slice_tokens / 8 * 2048;
  static constexpr int kTokens =
      kStaging + C::warpgroups * EpilogueTile<typename K::Out, C::slice_tokens>::kBytes;
  static constexpr int kGifts = (kTokens + C::warpgroups * kEndBytes + 15) / 16 * 16;
  static constexpr int kFull = kGifts + (C::givers - 1) * kGiftBytes;
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

// Part of the next GEMM's weights comes into L2 while this one's last are multiplied and stored and
// a small kernel runs between the two: HBM would stand still meanwhile. By the lanes of a warp: the
// copy engine works off its requests in order, and has this tile's stores to do.
__device__ inline void ask_ahead(const Params& p) {
  const uint8_t* const from = p.next + blockIdx.x * p.next_step;
  for (int at = static_cast<int>(threadIdx.x) % 32 * 128; at < p.next_bytes; at += 32 * 128) {
    ptx::prefetch_line(from + at);
  }
}

// What one thread, or two of a CTA, run. A stage is full when its barrier has been told of its
// weights and of its activations, and both have come.
//
// No kernel writes weights, so that half a ring of them comes before the kernel that makes the
// activations has ended; not more, because memory answers in the order in which it is asked: the
// first activations, and what that kernel still reads and writes, queue behind them.
template <class K>
class Producer {
  using L = Layout<K>;
  using C = typename K::C;

 public:
  __device__ Producer(const Params& p, uint32_t shared)
      : p_(p), shared_(shared), act_step_(int64_t{p.capacity} * kActBlockBytes) {}

  // What the first producer warp's thread does: one of two brings the weights, one alone those
  // ahead.
  __device__ void run_first() {
    if constexpr (C::producers == 2) {
      run_weights();
    } else {
      prefetch_weights();
    }
  }
  // What the last one's does, after that if it is the same: one of two brings the activations, one
  // alone everything.
  __device__ void run_last() {
    if constexpr (C::producers == 2) {
      run_tokens();
    } else {
      run();
    }
  }

 private:
  static constexpr int kAhead = (C::stages + 1) / 2;
  // Few tokens are one tile, and their weights are read once.
  static constexpr bool kReadOnce = C::tokens <= 32;

  struct Stage {
    int first, count;  // parts of blocks, counted over all body blocks; or outlier blocks
    bool outliers;
  };

  __device__ void run_weights() {
    int ahead = kAhead;
    each_stage([&](const Work& work, const Stage& stage) {
      if (ahead-- == 0) wait_for_previous();
      wait_empty();
      fill_weights(work, stage);
      ring_.advance();
      return true;
    });
  }
  __device__ void run_tokens() {
    bool waits = true;
    each_stage([&](const Work& work, const Stage& stage) {
      if (waits) wait_for_previous();
      waits = false;
      wait_empty();
      fill_tokens(work, stage);
      ring_.advance();
      return true;
    });
  }

  // It waits for no stage, for all are empty; the compiler would also move the addresses of all
  // that producers do from uniform registers into a lane's, and a block of 128 x 128 would take a
  // tenth longer.
  __device__ void prefetch_weights() {
    each_stage([&](const Work& work, const Stage& stage) {
      if (ready_ == kAhead || stage.outliers) return false;
      fill_weights(work, stage);
      ring_.advance();
      ++ready_;
      return true;
    });
    ring_ = {};
  }
  __device__ void run() {
    wait_for_previous();
    each_stage([&](const Work& work, const Stage& stage) {
      if (ready_ > 0) {
        --ready_;
      } else {
        wait_empty();
        fill_weights(work, stage);
      }
      fill_tokens(work, stage);
      ring_.advance();
      return true;
    });
  }

  // Calls fill(work, stage) for the stages of all tiles, until it returns false.
  template <class Fill>
  __device__ void each_stage(const Fill& fill) {
    ScheduleOf<K> schedule = make_schedule<K>(p_);
    for (Work work; schedule.next(work);) {
      begin_tile(work);
      const int end = work.end * L::kParts;
#pragma unroll 1
      for (int part = work.begin * L::kParts; part < end; part += C::turns) {
        if (!fill(work, Stage{part, count(end - part), false})) return;
      }
      if (!work.finishes) continue;
#pragma unroll 1
      for (int b = 0; b < p_.shape.outlier_blocks; b += C::turns) {
        if (!fill(work, Stage{b, count(p_.shape.outlier_blocks - b), true})) return;
      }
    }
  }
  __device__ static int count(int left) { return C::turns == 1 ? 1 : min(C::turns, left); }

  // What the stages of a tile have in common, so that each of them is few instructions.
  __device__ void begin_tile(const Work& work) {
    const uint8_t* codes = p_.weights;
    if constexpr (K::experts) codes = p_.experts.w[work.expert].codes;
    const int64_t row_bytes = int64_t{p_.shape.blocks()} * L::kBlockBytes;
    const int last = (p_.row_blocks - 1) / K::Format::kRowBlocks;
#pragma unroll
    for (int i = 0; i < L::kBlocks; ++i) {
      weights_[i] = codes + min(work.tile_w * L::kBlocks + i, last) * row_bytes;
    }
    acts_ = p_.x + int64_t{work.token0} * kActBlockBytes;
    tokens_ = present(work.token0, C::tokens);
  }
  __device__ uint32_t full() const { return shared_ + L::kFull + ring_.stage * 8; }
  __device__ void wait_empty() const {
    ptx::barrier_wait(shared_ + L::kEmpty + ring_.stage * 8, ring_.phase ^ 1);
  }
  // The weights of the ring's stage, which is empty.
  __device__ void fill_weights(const Work& work, const Stage& stage) {
    const int block = stage.outliers ? p_.shape.body_blocks + stage.first : stage.first / L::kParts;
    const int part = stage.outliers ? 0 : stage.first % L::kParts;
    const int64_t offset = int64_t{block} * L::kBlockBytes + part * L::kPartStep;
    const uint32_t bytes = stage.count * L::kPartBytes;
    ptx::barrier_expect(full(),
                        L::kBlocks * bytes + (C::producers == 1 ? token_bytes(work, stage) : 0));
#pragma unroll
    for (int i = 0; i < L::kBlocks; ++i) {
      const uint32_t to = shared_ + L::kWeights + ring_.stage * L::kWeightBytes + i * L::kRowBytes;
      if constexpr (kReadOnce) {
        ptx::bulk_copy_once(to, weights_[i] + offset, bytes, full());
      } else {
        ptx::bulk_copy(to, weights_[i] + offset, bytes, full());
      }
    }
  }
  // Tokens of a stage: two outlier blocks of weights share one block of activations, which comes
  // with the first.
  __device__ int tokens_of(const Work& work, const Stage& stage) const {
    if (!stage.outliers) return tokens_;
    return stage.first % 2 == 0 ? present(first_token<C>(work), C::slice_tokens) : 0;
  }
  __device__ uint32_t token_bytes(const Work& work, const Stage& stage) const {
    const int blocks = stage.outliers ? 1 : stage.count * L::kActBlocks;
    const int groups = L::kTokenScaleBytes > 0 && !stage.outliers ? K::groups : 0;
    return tokens_of(work, stage) * (blocks * kActBlockBytes + groups * 4);
  }
  // The activations of the ring's stage, which is empty, and the scales of tokens' groups.
  __device__ void fill_tokens(const Work& work, const Stage& stage) const {
    if constexpr (C::producers == 2) ptx::barrier_expect(full(), token_bytes(work, stage));
    if (stage.outliers) {
      copy_tokens(acts_ + (p_.shape.body_blocks + stage.first / 2) * act_step_ +
                      (first_token<C>(work) - work.token0) * kActBlockBytes,
                  1, tokens_of(work, stage));
      return;
    }
    copy_tokens(acts_ + stage.first * L::kActBlocks * act_step_, stage.count * L::kActBlocks,
                tokens_);
    if constexpr (L::kTokenScaleBytes > 0) {
      const uint32_t to = shared_ + L::kTokenScales + ring_.stage * L::kTokenScaleBytes;
#pragma unroll
      for (int g = 0; g < K::groups && tokens_ > 0; ++g) {
        const int64_t row = static_cast<int64_t>(stage.first) * K::groups + g;
        ptx::bulk_copy(to + g * L::kScaleRowBytes, p_.x_scales + row * p_.capacity + work.token0,
                       tokens_ * 4, full());
      }
    }
  }

  // Of `tokens` tokens from token0 on those that there are, up to a whole step of the layout; what
  // lies behind them in shared memory stays as it was, in columns that nobody stores.
  __device__ int present(int token0, int tokens) const {
    constexpr int kStep = K::Format::kTokenStep;
    return max(min(tokens, (p_.out.tokens + kStep - 1) / kStep * kStep - token0), 0);
  }
  // `count` blocks of activations.
  __device__ void copy_tokens(const int8_t* from, int count, int tokens) const {
    const uint32_t to = shared_ + L::kActs + ring_.stage * L::kActBytes;
    if constexpr (C::share > 1) {
      static_assert(L::kActBlocks * C::turns == 1);
      // The part of this CTA, for all.
      const int part = (tokens + 8 * C::share - 1) / (8 * C::share) * 8;
      const int first = static_cast<int>(blockIdx.x) % C::share * part;
      const int here = min(part, tokens - first);
      if (here > 0) {
        ptx::bulk_copy_to((1 << C::share) - 1, to + first * kActBlockBytes,
                          from + first * kActBlockBytes, here * kActBlockBytes, full());
      }
    } else if (tokens > 0) {
#pragma unroll
      for (int i = 0; i < C::turns * L::kActBlocks; ++i) {
        if (C::turns > 1 && i >= count) break;
        ptx::bulk_copy(to + i * C::tokens * kActBlockBytes, from + i * act_step_,
                       tokens * kActBlockBytes, full());
      }
    }
  }

  const Params& p_;
  uint32_t shared_;
  int64_t act_step_;                    // bytes from a block of activations to the next
  const uint8_t* weights_[L::kBlocks];  // of the tile, from its first block on
  const int8_t* acts_;                  // the same
  int tokens_;                          // of the tile, that there are
  Ring<C::stages> ring_;
  int ready_ = 0;  // stages ahead that have their weights already
};

}  // namespace atom::cuda::gemm
