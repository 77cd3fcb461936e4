// What the math warpgroups of every GEMM do alike: walk through the schedule, exchange partial
// sums, add the int8 outlier columns, store the tile. A format supplies the products of the body:
//
//   Format    Acc                 type of its sums, int32_t or float
//             kTokenGroupScales   stages bring the tokens' scales
//             kRowScaleLast       row scales multiply the whole sum, or only the outliers
//             kRowBlocks          a block of weights has so many times 64 channels
//             kActBlocks          and meets so many blocks of activations
//             parts<tokens>()     stages that it takes along K
//             block_bytes<groups>(), part_bytes<groups>()   of it, and of its part of a stage
//             kOutliers           int8 outlier columns may follow
//             kBodyOfNone         body(0) is fine, as some CTA of a cluster would have it
//             kTokenStep          token_step() of gemm_args.h
//             struct Math<K>      : Consumer<K, Math<K>> with
//               body(blocks)      adds so many blocks, or of them those of this turn, to sums_
//               to_float(sums, v) as floats, up to the row scale where it comes last
#pragma once

#include <type_traits>

#include "backend/cuda/gemm/pipeline.cuh"
#include "backend/cuda/ptx/mma.cuh"
#include "backend/cuda/ptx/wgmma.cuh"

namespace atom::cuda::gemm {

template <class K, class Math>
class Consumer {
 protected:
  using C = typename K::C;
  using Out = typename K::Out;
  using L = Layout<K>;
  using Acc = typename K::Format::Acc;
  static constexpr bool kGates = sizeof(Out) == 2;  // what gates writes halves
  static constexpr int kRows = C::row_blocks;
  static constexpr int kAcc = C::tokens / 2;
  static constexpr int kSliceAcc = C::slice_tokens / 2;

 public:
  __device__ explicit Consumer(const Params& p)
      : p_(p),
        group_(static_cast<int>(threadIdx.x) / 128 % C::warpgroups),
        thread_(static_cast<int>(threadIdx.x) % 128),
        cta_(static_cast<int>(blockIdx.x) / C::share) {}

  // start() waits for the kernel ahead. To find the first tile's place does not need that; with few
  // tokens it only holds up the producers.
  template <class Start>
  __device__ void run(const Start& start) {
    bool waits = C::tokens > 32;
    if (!waits) start();
    ScheduleOf<K> schedule = make_schedule<K>(p_);
    for (Work work; schedule.next(work);) {
      if (waits) start();
      waits = false;
      const bool finishes = work.finishes && turn() == 0;
      if (finishes) fetch_end_values(work);
      tokens_ = K::experts ? C::tokens : p_.out.tokens - work.token0;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int i = 0; i < kAcc; ++i) sums_[r][i] = 0;
      }
      if (K::Format::kBodyOfNone || work.end > work.begin) math().body(work.end - work.begin);
      if constexpr (C::cluster > 1) {
        give_slices();
        if (!finishes) {
          pass_stages(work);
          continue;
        }
        Acc slice[kRows][kSliceAcc];
        finish(slice, work, [&] { take_slice(slice); });
      } else {
        if (!finishes) {
          give_partial();
          continue;
        }
        if (work.begin > 0) take_partials(schedule, work);
        finish(sums_, work, [] {});
      }
    }
    if (waits) start();
  }

 protected:
  // Of this warpgroup.
  __device__ static int turn() {
    return C::turns == 1 ? 0 : static_cast<int>(threadIdx.x) / (128 * C::warpgroups);
  }
  __device__ static uint32_t shared() { return ptx::shared_address(shared_memory()); }
  __device__ Math& math() { return static_cast<Math&>(*this); }
  // The block of this turn, or its part, with the rows r of this warpgroup.
  __device__ const uint8_t* weights(int r) const {
    return shared_memory() + L::kWeights + ring_.stage * L::kWeightBytes +
           (group_ * kRows + r) / K::Format::kRowBlocks * L::kRowBytes + turn() * L::kPartBytes;
  }
  // Of the stage's block of activations.
  __device__ uint64_t acts(int block = 0) const {
    return ptx::swizzled_descriptor(shared() + L::kActs + ring_.stage * L::kActBytes +
                                    block * C::tokens * kActBlockBytes);
  }
  __device__ void wait_full() const {
    ptx::barrier_wait(shared() + L::kFull + ring_.stage * 8, ring_.phase);
  }
  // This warp has read the stage.
  __device__ void release(int stage) const {
    __syncwarp();
    const uint32_t empty = shared() + L::kEmpty + stage * 8;
    if constexpr (C::share > 1) {
      // Others fill it too.
      if (thread_ % 32 < C::share) {
        ptx::barrier_tell(ptx::address_in(empty, thread_ % 32));
      }
    } else {
      if (thread_ % 32 == 0) ptx::barrier_arrive(empty);
    }
  }
  // [scales][outlier scales][sums] of the tile's tokens.
  __device__ uint8_t* token_values() const {
    return shared_memory() + L::kTokens + group_ * L::kEndBytes;
  }
  // [scales][biases] of the warpgroup's rows.
  __device__ float* row_values() const {
    return reinterpret_cast<float*>(token_values() + L::kTokenBytes);
  }
  __device__ int first_row(const Work& work) const {
    return (work.tile_w * C::warpgroups + group_) * kRows * 64;
  }

 private:
  __device__ uint8_t* staging() const {
    return shared_memory() + L::kStaging + group_ * EpilogueTile<Out, C::slice_tokens>::kBytes;
  }

  // Stages that this turn has no part in: the body's last, where it ends with another turn's block,
  // and the outliers'. A stage is empty when the warps of all turns say so.
  __device__ void pass_stages(const Work& work) {
    if constexpr (C::turns > 1) {
      const int blocks = work.end - work.begin;
      const int all = (blocks + C::turns - 1) / C::turns,
                own = (blocks + C::turns - 1 - turn()) / C::turns;
      const int outliers = work.finishes ? (p_.shape.outlier_blocks + C::turns - 1) / C::turns : 0;
#pragma unroll 1
      for (int stages = all - own + outliers; stages > 0; --stages) {
        wait_full();
        release(ring_.stage);
        ring_.advance();
      }
    }
  }

  __device__ int slot(int cta) const {
    const int rank = static_cast<int>(blockIdx.x) % C::share;
    return (cta * C::share + rank) * C::warpgroups + group_;
  }
  __device__ int4* partial(int cta) const {
    return static_cast<int4*>(p_.partials) +
           static_cast<int64_t>(slot(cta)) * (kRows * kAcc / 4) * 128 + thread_;
  }
  __device__ static int bits(int32_t v) { return v; }
  __device__ static int bits(float v) { return __float_as_int(v); }
  __device__ static Acc from_bits(int v) {
    if constexpr (std::is_same_v<Acc, float>) return __int_as_float(v);
    if constexpr (std::is_same_v<Acc, int32_t>) return v;
  }
  __device__ void give_partial() {
    int4* to = partial(cta_);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < kAcc / 4; ++i) {
        const Acc* s = &sums_[r][4 * i];
        to[(r * (kAcc / 4) + i) * 128] = make_int4(bits(s[0]), bits(s[1]), bits(s[2]), bits(s[3]));
      }
    }
    __threadfence();
    ptx::named_sync(1 + group_, 128);
    if (thread_ == 0) ptx::store_release(&p_.flags[slot(cta_)], 1);
  }
  __device__ void take_partials(const ScheduleOf<K>& schedule, const Work& work) {
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
          Acc* s = &sums_[r][4 * i];
          s[0] += from_bits(v.x);
          s[1] += from_bits(v.y);
          s[2] += from_bits(v.z);
          s[3] += from_bits(v.w);
        }
      }
      if (schedule.share_begin(cta) <= work.first) return;
    }
  }

  // Sums of every slice go to the warpgroup of the cluster that finishes it: [from other][...]
  // there.
  __device__ void give_slices() const {
    constexpr int kEach = C::slice_tokens / 8;
    const int giver = cta_ % C::cluster * C::turns + turn();
#pragma unroll
    for (int slice = 0; slice < C::slices; ++slice) {
      const int taker = slice * C::turns;
      if (giver == taker) continue;
      const int gift = giver < taker ? giver : giver - 1;
      const uint32_t there =
          ptx::address_in(shared() + L::kGifts + gift * L::kGiftBytes + thread_ * 16, slice);
      const uint32_t given = ptx::address_in(shared() + L::kGiven, slice);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int i = 0; i < kEach; ++i) {
          const Acc* s = &sums_[r][4 * (slice * kEach + i)];
          ptx::store_there(there + ((group_ * kRows + r) * kEach + i) * 2048,
                           make_int4(bits(s[0]), bits(s[1]), bits(s[2]), bits(s[3])), given);
        }
      }
    }
  }
  // The sums of this CTA's slice: its own, then the others' in the order of the cluster's CTAs and
  // their turns.
  __device__ void take_slice(Acc (&slice)[kRows][kSliceAcc]) const {
    constexpr int kEach = C::slice_tokens / 8;
    const int rank = cta_ % C::cluster;
#pragma unroll
    for (int s = 0; s < C::slices; ++s) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int i = 0; i < kSliceAcc; ++i) {
          if (s == 0 || s == rank) slice[r][i] = sums_[r][s * kSliceAcc + i];
        }
      }
    }
    ptx::barrier_wait_cluster(shared() + L::kGiven, 0);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
#pragma unroll
        for (int gift = 0; gift < C::givers - 1; ++gift) {
          const int4 v = *reinterpret_cast<const int4*>(
              shared_memory() + L::kGifts + gift * L::kGiftBytes +
              ((group_ * kRows + r) * kEach + i) * 2048 + thread_ * 16);
          Acc* s = &slice[r][4 * i];
          s[0] += from_bits(v.x);
          s[1] += from_bits(v.y);
          s[2] += from_bits(v.z);
          s[3] += from_bits(v.w);
        }
      }
    }
  }

  // Starts to bring what the tile's end needs; the previous tile has used its own.
  __device__ void fetch_end_values(const Work& work) const {
    ptx::named_sync(1 + group_, 128);
    const float *row_scales = p_.row_scales, *biases = p_.out.bias;
    if constexpr (K::experts) {
      row_scales = p_.experts.w[work.expert].row_scales;
      biases = p_.experts.w[work.expert].bias;
    }
    for (int r = thread_; r < 64 * kRows; r += 128) {
      const int row = first_row(work) + r;
      if (row >= (kGates ? p_.out.weight_rows() : p_.out.rows)) break;
      float* to = row_values() + r;
      ptx::copy4(ptx::shared_address(to), row_scales + row);
      if (biases != nullptr) {
        ptx::copy4(ptx::shared_address(to + 64 * kRows), biases + row);
      } else {
        to[64 * kRows] = 0.0f;
      }
    }
    const int token0 = first_token<C>(work);
    const void* from[3] = {K::Format::kTokenGroupScales ? nullptr : p_.x_scales,
                           p_.x_outlier_scales, p_.x_sums};
    const uint32_t to = ptx::shared_address(token_values());
#pragma unroll
    for (int array = 0; array < 3; ++array) {
      if (from[array] == nullptr) continue;
      for (int t = 4 * thread_; t < C::slice_tokens; t += 512) {
        if (token0 + t >= p_.capacity) break;
        ptx::copy16(to + (array * C::slice_tokens + t) * 4,
                    static_cast<const uint32_t*>(from[array]) + token0 + t);
      }
    }
  }

  // Scales the sums, adds the outlier blocks and stores the tile. complete(): waits for the sums,
  // where others have a part in them.
  template <class Complete>
  __device__ void finish(const Acc (&sums)[kRows][kSliceAcc], const Work& work,
                         const Complete& complete) {
    // The first outliers' products run while the others' sums are on their way.
    constexpr bool kOutliersAhead = K::Format::kOutliers && kWarpOutliers;
    const int token0 = first_token<C>(work);
    const int row0 = first_row(work);
    ptx::copy16_wait();
    ptx::named_sync(1 + group_, 128);  // the end's values are here
    int32_t outlier_sums[kOutliersAhead ? kSliceAcc : 1] = {};
    if constexpr (kOutliersAhead) {
      if (p_.shape.outlier_blocks > 0) multiply_outliers(outlier_sums, p_.shape.outlier_blocks > 1);
    }
    complete();
    float v[kRows][kSliceAcc], row_scale[kRows][2], bias[kRows][2];
    math().to_float(sums, v);
    TokenRange range = {0, p_.out.tokens};
    if constexpr (K::experts) {
      range = {p_.experts.offsets[work.expert], p_.experts.offsets[work.expert + 1]};
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = r * 64 + thread_ / 32 * 16 + thread_ % 32 / 4 + 8 * h;
        row_scale[r][h] = row_values()[row];
        bias[r][h] = row_values()[64 * kRows + row];
      }
    }
    if constexpr (K::Format::kOutliers) {
      for (int b = 0; b < p_.shape.outlier_blocks; b += 2) {
        const bool two = b + 1 < p_.shape.outlier_blocks;
        if constexpr (!kOutliersAhead) {
          add_outliers(v, row_scale, two);
        } else {
          if (b > 0) multiply_outliers(outlier_sums, two);
          scale_outliers(v, row_scale, outlier_sums);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < kSliceAcc; ++i) {
        const int h = i / 2 % 2;
        v[r][i] = K::Format::kRowScaleLast ? fmaf(v[r][i], row_scale[r][h], bias[r][h])
                                           : v[r][i] + bias[r][h];
      }
      const auto store = [&]<bool kGated>() {
        const int channel0 = (row0 + r * 64) / 64 * output_channels(kGated);
        store_tile<Out, C::slice_tokens, K::experts, kGated>(v[r], staging(), p_.out, range,
                                                             channel0, token0, thread_, 1 + group_);
      };
      if constexpr (kGates) {
        if (p_.out.gated) {
          store.template operator()<true>();
          continue;
        }
      }
      store.template operator()<false>();
    }
  }

  // One sum of outlier codes joins a value.
  __device__ static float add_outlier(float v, int32_t sum, float token_scale, float row_scale) {
    const auto s = static_cast<float>(sum);
    return fmaf(K::Format::kRowScaleLast ? s : s * row_scale, token_scale, v);
  }

  // Warp-wide products are enough for few tokens.
  static constexpr bool kWarpOutliers = C::slice_tokens <= 40;

  // The sums of up to 128 outlier columns: one block of activations, one or two of weights, which
  // are a stage each or, where warpgroups take turns, one together.
  __device__ void multiply_outliers(int32_t (&sums)[kSliceAcc], bool two) {
    wait_full();
    const int first = ring_.stage;
    uint32_t a[kRows][16] = {};
    load_outliers(a, 0, 0);
    if (C::turns == 1) ring_.advance();
    if (two) {
      if (C::turns == 1) wait_full();
      load_outliers(a, 8, C::turns == 1 ? 0 : L::kPartBytes);
    }
#pragma unroll
    for (int32_t& sum : sums) sum = 0;
    multiply_warp<false, C::slice_tokens>(sums, a[0], first);
    release(first);
    if (two && C::turns == 1) release(ring_.stage);
    if (two || C::turns > 1) ring_.advance();
  }
  __device__ const float2* outlier_scales() const {
    return reinterpret_cast<const float2*>(token_values() + C::slice_tokens * 4) + thread_ % 4;
  }
  __device__ void scale_outliers(float (&v)[kRows][kSliceAcc], const float (&row_scale)[kRows][2],
                                 const int32_t (&sums)[kSliceAcc]) const {
    static_assert(kRows == 1 || !kWarpOutliers);
#pragma unroll
    for (int i = 0; i < kSliceAcc; ++i) {
      const float2 s = outlier_scales()[i / 4 * 4];
      v[0][i] = add_outlier(v[0][i], sums[i], i % 2 ? s.y : s.x, row_scale[0][i / 2 % 2]);
    }
  }
  // The same by a warpgroup's products, and added.
  __device__ void add_outliers(float (&v)[kRows][kSliceAcc], const float (&row_scale)[kRows][2],
                               bool two) {
    wait_full();
    const int first = ring_.stage;
    uint32_t a[kRows][16] = {};
    load_outliers(a, 0, 0);
    const uint64_t b = ptx::uniform_descriptor(acts());
    if (C::turns == 1) ring_.advance();
    if (two) {
      if (C::turns == 1) wait_full();
      load_outliers(a, 8, C::turns == 1 ? 0 : L::kPartBytes);
    }
    outliers_warpgroup(v, row_scale, a, b, outlier_scales());
    release(first);
    if (two && C::turns == 1) release(ring_.stage);
    if (two || C::turns > 1) ring_.advance();
  }
  __device__ void outliers_warpgroup(float (&v)[kRows][kSliceAcc],
                                     const float (&row_scale)[kRows][2],
                                     const uint32_t (&a)[kRows][16], uint64_t b,
                                     const float2* scales) const {
    // Three warpgroups with as many sums have no registers for more.
    constexpr int kMost = C::warpgroups == 3 && C::slice_tokens > 128 ? 32 : 80;
    constexpr int kPiece = outlier_piece(C::slice_tokens, kMost);
    using Piece = ptx::WgmmaS8<kPiece>;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int piece = 0; piece < C::slice_tokens / kPiece; ++piece) {
        int32_t sum[Piece::kRegs];
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          Piece::issue(sum, &a[r][4 * k],
                       b + static_cast<uint64_t>(piece * (kPiece * kActBlockBytes >> 4) + 2 * k),
                       k > 0);
        }
        ptx::wgmma_commit();
        ptx::wgmma_wait<0>();
#pragma unroll
        for (int e = 0; e < Piece::kRegs; ++e) {
          const int at = piece * Piece::kRegs + e;
          const float2 s = scales[at / 4 * 4];
          v[r][at] = add_outlier(v[r][at], sum[e], e % 2 ? s.y : s.x, row_scale[r][at / 2 % 2]);
        }
      }
    }
  }
  // A block's fragments, into the words from `at` on.
  __device__ void load_outliers(uint32_t (&a)[kRows][16], int at, int offset) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const uint4 w = reinterpret_cast<const uint4*>(weights(r) + offset + k * 2048)[thread_];
        a[r][at + 4 * k] = w.x;
        a[r][at + 4 * k + 1] = w.y;
        a[r][at + 4 * k + 2] = w.z;
        a[r][at + 4 * k + 3] = w.w;
      }
    }
  }

 protected:
  // Where load_matrix() finds the B operands of warp-wide products with tokens 8j..8j + 7: two
  // words for each of the two k-steps of half a stage's swizzled block of activations.
  __device__ uint32_t operand_address(int stage, int block, int j, int half) const {
    // Matrix m of a load holds 16 bytes of 8 tokens, whose rows the lanes 8m.. address.
    const int row = thread_ % 8, m = thread_ % 32 / 8;
    return shared() + L::kActs + stage * L::kActBytes +
           (block * C::tokens + 8 * j + row) * kActBlockBytes + ((4 * half + m) ^ row) * 16;
  }
  // Whether the tile has tokens 8j...
  __device__ bool has_tokens(int j) const { return j == 0 || 8 * j < tokens_; }
  // Calls product(j, k, b0, b1) for all tokens of the tile and each k-step.
  template <int kTokens, class Product>
  __device__ void each_operand(int stage, int block, const Product& product) const {
#pragma unroll
    for (int j = 0; j < kTokens / 8; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t b[4];
        ptx::load_matrix(operand_address(stage, block, j, half), b);
#pragma unroll
        for (int k = 0; k < 2; ++k) product(j, 2 * half + k, b[2 * k], b[2 * k + 1]);
      }
    }
  }
  // Adds four k-steps by warp-wide products, of a stage's block of activations.
  template <bool kUnsigned, int kTokens>
  __device__ void multiply_warp(int32_t* sums, const uint32_t (&a)[16], int stage,
                                int block = 0) const {
    each_operand<kTokens>(stage, block, [&](int j, int k, uint32_t b0, uint32_t b1) {
      ptx::mma_s8<kUnsigned>(sums + 4 * j, &a[4 * k], b0, b1);
    });
  }

  const Params& p_;
  int group_, thread_;
  int cta_;     // CTAs that share activations have the same number
  int tokens_;  // that there are from the tile's first on
  Ring<C::stages> ring_;
  Acc sums_[kRows][kAcc];
};

}  // namespace atom::cuda::gemm
