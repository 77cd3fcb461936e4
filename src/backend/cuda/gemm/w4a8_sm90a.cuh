// gemm_w4a8_sm90a: y = dequant(x8 * w4^T), two-level integer weights on Hopper's int8 tensor cores.
//   x    [K/128][capacity][128] s8, swizzled; one scale a token, a second for its outlier columns
//   w    64 x 128 blocks of u4 codes in wgmma's A order with integer scales, then s8 outlier blocks
//        (w4a8_layout.h); f32 row scales
//   y    [M, N] f16, bf16 or f32
// Work: a CTA's tile is 128*kRowBlocks channels x kTokens tokens. One thread feeds a ring of stages
// by bulk copies; two warpgroups each own 64*kRowBlocks channels:
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

#include "backend/cuda/gemm/epilogue.cuh"
#include "backend/cuda/gemm/schedule.cuh"
#include "backend/cuda/gemm/w4a8_kernels.h"
#include "backend/cuda/ptx/mma.cuh"
#include "backend/cuda/ptx/sync.cuh"
#include "backend/cuda/ptx/wgmma.cuh"

namespace atom::cuda::w4a8 {

// A Config as a type: kernels take types only.
template <int kRowBlocks, int kTokens, int kStages, int kCtas>
struct Tile {
  static constexpr int row_blocks = kRowBlocks, tokens = kTokens, stages = kStages, ctas = kCtas;
  // Few tokens: one warp's products at a time, without the latency of a warpgroup's.
  static constexpr bool warp_mma = kTokens <= 32;
};

// Shared memory of a CTA, in bytes from its 1024-aligned start.
template <class C, int kGroups, class Out>
struct Layout {
  static constexpr int kBlockBytes = kScaleOffset + kGroups * kScaleBytes;
  static constexpr int kWeightBytes = 2 * C::row_blocks * kBlockBytes;  // of a stage
  static constexpr int kActBytes = C::tokens * kActBlockBytes;          // of a stage
  static constexpr int kActs = 0;
  static constexpr int kWeights = C::stages * kActBytes;
  static constexpr int kStaging = (kWeights + C::stages * kWeightBytes + 1023) / 1024 * 1024;
  // The tokens' scales, outlier scales and sums, for each warpgroup.
  static constexpr int kTokenBytes = 3 * C::tokens * 4;
  static constexpr int kTokens = kStaging + 2 * EpilogueTile<Out, C::tokens>::kBytes;
  static constexpr int kFull = kTokens + 2 * kTokenBytes;
  static constexpr int kEmpty = kFull + C::stages * 8;
  static constexpr int kBytes = kEmpty + C::stages * 8;
};

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

template <class C, int kGroups, class Out>
__device__ void produce(const Params& p, uint32_t shared) {
  using L = Layout<C, kGroups, Out>;
  Schedule schedule(p.plan, static_cast<int>(blockIdx.x));
  Ring<C::stages> ring;
  for (Work work; schedule.next(work);) {
    const int token0 = work.tile_t * C::tokens;
    const int end = work.end == p.plan.blocks ? p.shape.blocks() : work.end;
    for (int b = work.begin; b < end; ++b, ring.advance()) {
      const uint32_t full = shared + L::kFull + ring.stage * 8;
      ptx::barrier_wait(shared + L::kEmpty + ring.stage * 8, ring.phase ^ 1);
      // Two outlier blocks of weights share one block of activations, which comes with the first.
      const int outlier = b - p.shape.body_blocks;
      const bool acts = outlier < 0 || outlier % 2 == 0;
      const int act_block = outlier < 0 ? b : p.shape.body_blocks + outlier / 2;
      ptx::barrier_expect(full, L::kWeightBytes + (acts ? L::kActBytes : 0));
#pragma unroll
      for (int i = 0; i < 2 * C::row_blocks; ++i) {
        const int row_block = min(work.tile_w * 2 * C::row_blocks + i, p.row_blocks - 1);
        ptx::bulk_copy(
            shared + L::kWeights + ring.stage * L::kWeightBytes + i * L::kBlockBytes,
            p.weights + (static_cast<int64_t>(row_block) * p.shape.blocks() + b) * L::kBlockBytes,
            L::kBlockBytes, full);
      }
      if (!acts) continue;
      const int64_t row = static_cast<int64_t>(act_block) * p.capacity + token0;
      ptx::bulk_copy(shared + L::kActs + ring.stage * L::kActBytes, p.x + row * kActBlockBytes,
                     L::kActBytes, full);
    }
  }
}

// Expands 8 codes to two words of weight + 128: the low nibbles' and the high nibbles'.
__device__ inline void expand(uint32_t codes, uint32_t scale, uint32_t zeros, uint32_t& low,
                              uint32_t& high) {
  low = (codes & 0x0f0f0f0fu) * scale + zeros;
  high = ((codes >> 4) & 0x0f0f0f0fu) * scale + zeros;
}

// One thread's part of a 64 x 128 body block as it lies in shared memory.
template <int kGroups>
struct Codes {
  uint4 q[2];
  uint32_t pairs[kGroups];

  __device__ void load(const uint8_t* block, int thread) {
    q[0] = reinterpret_cast<const uint4*>(block)[thread];
    q[1] = reinterpret_cast<const uint4*>(block + 2048)[thread];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      pairs[g] = *reinterpret_cast<const uint32_t*>(block + kScaleOffset + g * kScaleBytes +
                                                    thread / 4 * 4);
    }
  }
  // The A fragment of k-step `step`.
  __device__ void unpack(int step, uint32_t* a) const {
    const uint32_t pair = pairs[step * kGroups / 4];
    const uint4& chunk = q[step / 2];
    expand(step % 2 ? chunk.z : chunk.x, pair & 0xff, __byte_perm(pair, 0, 0x1111), a[0], a[2]);
    expand(step % 2 ? chunk.w : chunk.y, (pair >> 16) & 0xff, __byte_perm(pair, 0, 0x3333), a[1],
           a[3]);
  }
};

template <class C, int kGroups, class Out>
class Consumer {
  using L = Layout<C, kGroups, Out>;
  using Mma = ptx::WgmmaU8S8<C::tokens>;
  static constexpr int kRows = C::row_blocks;
  static constexpr int kAcc = C::tokens / 2;
  // Tokens of an outlier piece: the sums of two live beside the body's.
  static constexpr int kPiece = 32;

 public:
  __device__ Consumer(const Params& p, uint8_t* memory, uint32_t shared)
      : p_(p),
        memory_(memory),
        shared_(shared),
        group_(static_cast<int>(threadIdx.x) / 128),
        thread_(static_cast<int>(threadIdx.x) % 128),
        cta_(static_cast<int>(blockIdx.x)) {}

  __device__ void run() {
    Schedule schedule(p_.plan, cta_);
    for (Work work; schedule.next(work);) {
      const bool finishes = work.end == p_.plan.blocks;
      if (finishes) fetch_token_values(work.tile_t * C::tokens);
      body(work.end - work.begin);
      if (!finishes) {
        give_partial();
        continue;
      }
      if (work.begin > 0) take_partials(schedule, work);
      finish(work);
    }
  }

 private:
  __device__ const uint8_t* weights(int r) const {
    return memory_ + L::kWeights + ring_.stage * L::kWeightBytes +
           (group_ * kRows + r) * L::kBlockBytes;
  }
  __device__ uint8_t* staging() const {
    return memory_ + L::kStaging + group_ * EpilogueTile<Out, C::tokens>::kBytes;
  }
  // [scales][outlier scales][sums] of the tile's tokens.
  __device__ uint8_t* token_values() const {
    return memory_ + L::kTokens + group_ * L::kTokenBytes;
  }
  __device__ uint64_t acts() const {
    return ptx::swizzled_descriptor(shared_ + L::kActs + ring_.stage * L::kActBytes);
  }
  __device__ void wait_full() const {
    ptx::barrier_wait(shared_ + L::kFull + ring_.stage * 8, ring_.phase);
  }
  // This warp has read the stage.
  __device__ void release(int stage) const {
    __syncwarp();
    if (thread_ % 32 == 0) ptx::barrier_arrive(shared_ + L::kEmpty + stage * 8);
  }

  // Adds four k-steps by warp-wide products; B comes from the swizzled activations of a stage.
  template <bool kUnsigned>
  __device__ void multiply_warp(int32_t* sums, const uint32_t (&a)[16], int stage) const {
    // Matrix m of a load holds 16 columns of 8 tokens, whose rows the lanes 8m.. address.
    const int row = thread_ % 8, m = thread_ % 32 / 8;
    const uint32_t base = shared_ + L::kActs + stage * L::kActBytes + row * kActBlockBytes;
#pragma unroll
    for (int j = 0; j < C::tokens / 8; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t b[4];
        ptx::load_matrix(base + 8 * j * kActBlockBytes + ((4 * half + m) ^ row) * 16, b);
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          ptx::mma_s8<kUnsigned>(sums + 4 * j, &a[8 * half + 4 * k], b[2 * k], b[2 * k + 1]);
        }
      }
    }
  }

  // The integer sums of `blocks` blocks.
  __device__ void body(int blocks) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < kAcc; ++i) acc_[r][i] = 0;
    }
    if constexpr (C::warp_mma) {
#pragma unroll 1
      for (; blocks > 0; --blocks) {
        wait_full();
        Codes<kGroups> codes;
        codes.load(weights(0), thread_);
        uint32_t a[16];
#pragma unroll
        for (int k = 0; k < 4; ++k) codes.unpack(k, &a[4 * k]);
        multiply_warp<true>(acc_[0], a, ring_.stage);
        release(ring_.stage);
        ring_.advance();
      }
    } else {
      body_warpgroup(blocks);
    }
  }
  // The same by warpgroup products of one k-step and 64 rows at a time. A product holds its warps
  // until the one before has read its registers, so that only the unpacking of the next fragment,
  // done between two products, is hidden behind them. Fragments rotate through four buffers.
  __device__ void body_warpgroup(int blocks) {
    constexpr int kUnits = 4 * kRows;
    Codes<kGroups> codes[kRows], next[kRows];
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
        Mma::issue(acc_[u % kRows], a[u % 4], b + static_cast<uint64_t>(2 * (u / kRows)), 1);
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

  __device__ int slot(int cta) const { return cta * 2 + group_; }
  __device__ int4* partial(int cta) const {
    return reinterpret_cast<int4*>(p_.partials) +
           static_cast<int64_t>(slot(cta)) * (kRows * kAcc / 4) * 128 + thread_;
  }
  __device__ void give_partial() {
    int4* to = partial(cta_);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < kAcc / 4; ++i) {
        to[(r * (kAcc / 4) + i) * 128] =
            make_int4(acc_[r][4 * i], acc_[r][4 * i + 1], acc_[r][4 * i + 2], acc_[r][4 * i + 3]);
      }
    }
    __threadfence();
    ptx::named_sync(1 + group_, 128);
    if (thread_ == 0) ptx::store_release(&p_.flags[slot(cta_)], 1);
  }
  __device__ void take_partials(const Schedule& schedule, const Work& work) {
    for (int cta = cta_ - 1;; --cta) {
      uint32_t* flag = &p_.flags[slot(cta)];
      if (thread_ == 0) {
        while (ptx::load_acquire(flag) == 0) {
        }
        *flag = 0;  // for the next launch
      }
      ptx::named_sync(1 + group_, 128);
      const int4* from = partial(cta);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int i = 0; i < kAcc / 4; ++i) {
          const int4 v = ptx::load_ordered(&from[(r * (kAcc / 4) + i) * 128]);
          acc_[r][4 * i] += v.x;
          acc_[r][4 * i + 1] += v.y;
          acc_[r][4 * i + 2] += v.z;
          acc_[r][4 * i + 3] += v.w;
        }
      }
      if (schedule.share_begin(cta) <= work.first) return;
    }
  }

  // Starts to bring what the tile's end needs of its tokens; the previous tile has used its own.
  __device__ void fetch_token_values(int token0) const {
    ptx::named_sync(1 + group_, 128);
    const void* from[3] = {p_.x_scales, p_.x_outlier_scales, p_.x_sums};
    const uint32_t to = ptx::shared_address(token_values());
#pragma unroll
    for (int array = 0; array < 3; ++array) {
      if (array == 1 && p_.shape.outlier_blocks == 0) continue;
      for (int t = 4 * thread_; t < C::tokens; t += 512) {
        ptx::copy16(to + (array * C::tokens + t) * 4,
                    static_cast<const uint32_t*>(from[array]) + token0 + t);
      }
    }
  }

  // Scales the sums, adds the outlier blocks and stores the tile.
  __device__ void finish(const Work& work) {
    const int token0 = work.tile_t * C::tokens;
    const int row0 = (work.tile_w * 2 + group_) * kRows * 64;
    ptx::copy16_wait();
    ptx::named_sync(1 + group_, 128);  // the tokens' values are here
    const auto* pairs = reinterpret_cast<const float2*>(token_values()) + thread_ % 4;
    const auto* sums = reinterpret_cast<const int2*>(pairs + C::tokens);
    float v[kRows][kAcc];
#pragma unroll
    for (int j = 0; j < kAcc / 4; ++j) {
      const float2 s = pairs[4 * j];
      const int2 sum = sums[4 * j];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          v[r][4 * j + e] = static_cast<float>(acc_[r][4 * j + e] - 128 * (e % 2 ? sum.y : sum.x)) *
                            (e % 2 ? s.y : s.x);
        }
      }
    }
    for (int b = 0; b < p_.shape.outlier_blocks; b += 2) {
      outliers(v, pairs + C::tokens / 2, b + 1 < p_.shape.outlier_blocks);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int row = row0 + r * 64 + thread_ / 32 * 16 + thread_ % 32 / 4;
      float scale[2], bias[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const bool real = row + 8 * h < p_.out.rows;
        scale[h] = real ? p_.row_scales[row + 8 * h] : 0.0f;
        bias[h] = real && p_.out.bias != nullptr ? p_.out.bias[row + 8 * h] : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < kAcc; ++i) v[r][i] = fmaf(v[r][i], scale[i / 2 % 2], bias[i / 2 % 2]);
      store_tile<Out, C::tokens>(v[r], staging(), p_.out, row0 + r * 64, token0, thread_,
                                 1 + group_);
    }
  }

  // Adds up to 128 outlier columns: one block of activations, one or two of weights.
  __device__ void outliers(float (&v)[kRows][kAcc], const float2* scales, bool two) {
    wait_full();
    const int first = ring_.stage;
    uint32_t a[kRows][16] = {};
    load_outliers(a, 0);
    const uint64_t b = acts();
    ring_.advance();
    if (two) {
      wait_full();
      load_outliers(a, 8);
    }
    if constexpr (C::warp_mma) {
      int32_t sum[kAcc] = {};
      multiply_warp<false>(sum, a[0], first);
#pragma unroll
      for (int i = 0; i < kAcc; ++i) {
        const float2 s = scales[i / 4 * 4];
        v[0][i] = fmaf(static_cast<float>(sum[i]), i % 2 ? s.y : s.x, v[0][i]);
      }
    } else {
      outliers_warpgroup(v, a, b, scales);
    }
    release(first);
    if (two) {
      release(ring_.stage);
      ring_.advance();
    }
  }
  __device__ void outliers_warpgroup(float (&v)[kRows][kAcc], const uint32_t (&a)[kRows][16],
                                     uint64_t b, const float2* scales) const {
    constexpr int kPieces = C::tokens / kPiece;
    using Piece = ptx::WgmmaS8<kPiece>;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      int32_t sum[2][Piece::kRegs];
#pragma unroll
      for (int piece = 0; piece <= kPieces; ++piece) {
        if (piece < kPieces) {
          ptx::wgmma_fence();
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            Piece::issue(sum[piece % 2], &a[r][4 * k],
                         b + static_cast<uint64_t>(piece * (kPiece * kActBlockBytes >> 4) + 2 * k),
                         k > 0);
          }
          ptx::wgmma_commit();
        }
        if (piece == 0) continue;
        if (piece < kPieces) {
          ptx::wgmma_wait<1>();
        } else {
          ptx::wgmma_wait<0>();
        }
#pragma unroll
        for (int e = 0; e < Piece::kRegs; ++e) {
          const int at = (piece - 1) * Piece::kRegs + e;
          const float2 s = scales[at / 4 * 4];
          v[r][at] = fmaf(static_cast<float>(sum[(piece - 1) % 2][e]), e % 2 ? s.y : s.x, v[r][at]);
        }
      }
    }
  }
  __device__ void load_outliers(uint32_t (&a)[kRows][16], int at) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const uint4 w = reinterpret_cast<const uint4*>(weights(r) + k * 2048)[thread_];
        a[r][at + 4 * k] = w.x;
        a[r][at + 4 * k + 1] = w.y;
        a[r][at + 4 * k + 2] = w.z;
        a[r][at + 4 * k + 3] = w.w;
      }
    }
  }

  const Params& p_;
  uint8_t* memory_;
  uint32_t shared_;
  int group_, thread_, cta_;
  Ring<C::stages> ring_;
  int32_t acc_[kRows][kAcc];
};

template <class C, int kGroups, class Out>
__global__ __launch_bounds__(threads(C::ctas), C::ctas) void gemm_w4a8_sm90a_kernel(
    const __grid_constant__ Params p) {
  using L = Layout<C, kGroups, Out>;
  extern __shared__ __align__(1024) uint8_t memory[];
  const uint32_t shared = ptx::shared_address(memory);
  if (threadIdx.x == 0) {
    for (int s = 0; s < C::stages; ++s) {
      ptx::barrier_init(shared + L::kFull + s * 8, 1);
      ptx::barrier_init(shared + L::kEmpty + s * 8, kMathThreads / 32);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();
  // One CTA on a multiprocessor moves registers from the producer to the math warps; where several
  // share it, their tiles are small enough without.
  if (threadIdx.x >= kMathThreads) {
    if constexpr (C::ctas == 1) ptx::give_registers<56>();
    if (threadIdx.x == kMathThreads) produce<C, kGroups, Out>(p, shared);
  } else {
    if constexpr (C::ctas == 1) ptx::take_registers<224>();
    Consumer<C, kGroups, Out>(p, memory, shared).run();
    ptx::bulk_store_wait_read<0>();  // shared memory must outlive them
  }
}

}  // namespace atom::cuda::w4a8
