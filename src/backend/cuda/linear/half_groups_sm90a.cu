// half_groups_sm90a: y = dequant(x8 * w8^T) of byte_groups.cu for many tokens, by halves on
// Hopper's tensor cores: a group's sum costs no scaling then.
//   x    f16 [K/128][2][capacity][64] and f32 units [T] (half_operands.h)
//   w    [N, K] s8, f16 scales [N, K/32], f32 powers of two [N] that take a row's largest scale to
//        2^14 or more, below 2^15
//   y    [T, N] f32 or f16
// Work: a CTA takes 256 rows x 32 to 128 tokens, each of its four warpgroups 64 rows. One thread
// fills a ring of stages of 128 columns:
//
//   x     [half][token] 128 bytes, swizzled, as wgmma takes its B operand
//   codes [row] 128 bytes, the 16 of piece p at p ^ (row % 8)
//
// Lane 4g + c of a warp has pieces 2c and 2c + 1 of rows g and g + 8, which are one group; lanes
// that load at a time, two rows', meet in no bank. Word s of piece 2c + h is the lane's part of
// k-step s of wgmma's A operand against half h of x, whose columns are in that order:
//
//   byte of word s      0        1        2        3
//   k of the step      2c     2c + 8   2c + 1   2c + 9
//
// Plus 128 and masked out, two codes are two subnormal halves, q * 2^-24, which one multiply-add
// makes (q - 128) * scale: ten instructions for eight weights. Rounds: weights to f16 once (2^-11
// of each at most), as x was; sums are the tensor cores' f32 over all of K, and the powers of two
// come last.   Requires: K a multiple of 32; sm_90a.   Bound: HBM up to about 64 tokens, then the
// tensor cores.
#include <cuda_fp16.h>

#include <algorithm>

#include "backend/cuda/gemm/pipeline.cuh"
#include "backend/cuda/linear/half_groups.h"
#include "backend/cuda/linear/half_operands.h"
#include "backend/cuda/ptx/fetch.cuh"
#include "backend/cuda/ptx/wgmma.cuh"
#include "backend/cuda/runtime/launch.cuh"
#include "backend/cuda/runtime/tensor_map.h"

namespace atom::cuda {
namespace {

using gemm::Ring, gemm::shared_memory;
using half_operands::kBlockCols, half_operands::kHalves, half_operands::kRowBytes;

constexpr int kWarpgroups = 4, kRows = 64 * kWarpgroups;
constexpr int kMathThreads = 128 * kWarpgroups;
constexpr int kMostTokens = 128;  // of a tile
constexpr int kGroup = 32, kBlockGroups = kBlockCols / kGroup;
constexpr float kCodeUnit = 0x1p-24f;  // of a code in the low bits of a half
constexpr int kBias = 128;

struct HalfGroupParams {
  CUtensorMap codes;  // in boxes of kRows x kBlockCols bytes
  const uint16_t* scales;
  const float* row_powers;
  const uint16_t* x;
  const float* units;
  OutputArgs out;
  int groups, blocks;         // along K
  int capacity, token_tiles;  // of x
};

// The sums of many tokens need more registers than an even share: they are moved from a producer
// warpgroup.
constexpr bool moves_registers(int tokens) { return tokens > 64; }
constexpr int threads(int tokens) { return kMathThreads + (moves_registers(tokens) ? 128 : 32); }

// Shared memory of a CTA, in bytes from its 1024-aligned start.
template <int kTokens>
struct Layout {
  static constexpr int kHalfBytes = kTokens * kRowBytes;  // of x
  static constexpr int kActBytes = kHalves * kHalfBytes, kCodeBytes = kRows * kBlockCols;
  static constexpr int kStageBytes = kActBytes + kCodeBytes;
  static constexpr int kStages = (208 << 10) / kStageBytes;
  static constexpr int kCodes = kStages * kActBytes;
  static constexpr int kUnits = kStages * kStageBytes;
  static constexpr int kFull = kUnits + kTokens * 4;
  static constexpr int kEmpty = kFull + kStages * 8;
  static constexpr int kBytes = kEmpty + kStages * 8;
  // The tile leaves through the ring when that is empty.
  static_assert(kWarpgroups * EpilogueTile<float, kTokens>::kBytes <= kUnits);
};

// Where a CTA's tile begins. Tiles of tokens that read the same weights run at the same time.
struct Tile {
  int row0, token0;

  template <int kTokens>
  __device__ static Tile mine(const HalfGroupParams& p) {
    const int number = static_cast<int>(blockIdx.x);
    return {.row0 = number / p.token_tiles * kRows, .token0 = number % p.token_tiles * kTokens};
  }
};

// One thread.
template <int kTokens>
class Producer {
  using L = Layout<kTokens>;

 public:
  __device__ explicit Producer(const HalfGroupParams& p)
      : p_(p), tile_(Tile::mine<kTokens>(p)), shared_(ptx::shared_address(shared_memory())) {
    constexpr int kStep = half_operands::kTokenStep;
    const int rest = (p.out.tokens + kStep - 1) / kStep * kStep - tile_.token0;
    half_bytes_ = static_cast<uint32_t>(min(kTokens, rest) * kRowBytes);
  }

  // A ring full of codes, which no kernel writes, before the kernel that makes x has ended.
  __device__ void start() const {
    for (int b = 0; b < min(p_.blocks, L::kStages); ++b) bring_codes(b, b);
  }
  __device__ void run() const {
    wait_for_previous();
    Ring<L::kStages> ring;
#pragma unroll 1
    for (int b = 0; b < p_.blocks; ++b) {
      if (b >= L::kStages) {
        ptx::barrier_wait(shared_ + L::kEmpty + ring.stage * 8, ring.phase ^ 1);
        bring_codes(b, ring.stage);
      }
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        ptx::bulk_copy(shared_ + ring.stage * L::kActBytes + half * L::kHalfBytes,
                       p_.x + half_operands::place(b, half, tile_.token0, p_.capacity), half_bytes_,
                       full(ring.stage));
      }
      ring.advance();
    }
  }

 private:
  __device__ uint32_t full(int stage) const { return shared_ + L::kFull + stage * 8; }
  __device__ void bring_codes(int block, int stage) const {
    ptx::barrier_expect(full(stage), L::kCodeBytes + kHalves * half_bytes_);
    ptx::box_load(shared_ + L::kCodes + stage * L::kCodeBytes, &p_.codes, block * kBlockCols,
                  tile_.row0, full(stage));
  }

  const HalfGroupParams& p_;
  Tile tile_;
  uint32_t shared_, half_bytes_;
};

// Of one row and group, twice each in a word.
struct RowScale {
  __half2 scale, zero;  // zero: what code 0 makes, negative

  __device__ void set(uint16_t bits, float power) {
    const float s = __half2float(__ushort_as_half(bits)) * power;
    scale = __floats2half2_rn(s, s);
    const float z = s * (-kBias * kCodeUnit);
    zero = __floats2half2_rn(z, z);
  }
  // Bytes 0 and 2 of the word.
  __device__ uint32_t expand(uint32_t codes) const {
    // One instruction, which the compiler would make two of.
    uint32_t biased;
    asm("lop3.b32 %0, %1, 0x00ff00ff, %2, 0x6a;" : "=r"(biased) : "r"(codes), "r"(0x00800080u));
    const __half2 w = __hfma2(*reinterpret_cast<const __half2*>(&biased), scale, zero);
    return *reinterpret_cast<const uint32_t*>(&w);
  }
};

// One warpgroup's 64 rows.
template <int kTokens, class Out>
class Math {
  using L = Layout<kTokens>;
  using Mma = ptx::WgmmaF16<kTokens>;

 public:
  __device__ explicit Math(const HalfGroupParams& p)
      : p_(p),
        tile_(Tile::mine<kTokens>(p)),
        group_(static_cast<int>(threadIdx.x) / 128),
        thread_(static_cast<int>(threadIdx.x) % 128) {
    const int lane = thread_ % 32, last = p.out.rows - 1;
    const int warp_row = group_ * 64 + thread_ / 32 * 16;
    first_ = warp_row + lane / 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = min(tile_.row0 + first_ + 8 * h, last);
      power_[h] = p.row_powers[row];
      scales_[h] = (row - tile_.row0) * p.groups;
    }
    // The scales of the warp's 16 rows are one run of memory.
    const int begin = min(tile_.row0 + warp_row, last + 1), end = min(begin + 16, last + 1);
    const auto* from = reinterpret_cast<const uint8_t*>(p.scales + int64_t{begin} * p.groups);
    for (int i = lane * 128; i < (end - begin) * p.groups * 2; i += 32 * 128) {
      ptx::prefetch_line(from + i);
    }
  }

  // The units of the tile's tokens, for the end.
  __device__ void fetch_units() const {
    const int t = static_cast<int>(threadIdx.x);
    if (t < kTokens && tile_.token0 + t < p_.out.tokens) {
      units()[t] = p_.units[tile_.token0 + t];
    }
    // The compiler knows besides that warps are whole here, and keeps what they share in uniform
    // registers.
    ptx::named_sync(1 + kWarpgroups, kMathThreads);
  }

  // Sums of all of K. Two k-steps are unpacked while the products of the two before run: all
  // warpgroups wait for the same stages, and would else unpack and multiply in step.
  __device__ void multiply() {
    uint16_t bits[2];
    RowScale scales[2];
    uint4 codes[2];    // of a half
    uint32_t a[2][8];  // of two k-steps
    fetch_scales(bits, 0);
    set(scales, bits);
    wait_full();
    load(codes, 0);
    unpack<0>(codes, scales, a[0]);
    int before = -1;  // the previous block's stage
    pin_sums();
#pragma unroll 1
    for (int b = 0;; ++b) {
      const int stage = ring_.stage;
      const uint64_t x = ptx::swizzled_descriptor(shared() + stage * L::kActBytes);
      fetch_scales(bits, b + 1);
      issue(a[0], x);
      ptx::wgmma_wait<1>();
      if (before >= 0) release(before);
      unpack<1>(codes, scales, a[1]);
      issue(a[1], x + 4);
      load(codes, 1);
      ptx::wgmma_wait<1>();
      unpack<0>(codes, scales, a[0]);
      issue(a[0], x + (L::kHalfBytes >> 4));
      ptx::wgmma_wait<1>();
      unpack<1>(codes, scales, a[1]);
      issue(a[1], x + (L::kHalfBytes >> 4) + 4);
      ptx::wgmma_wait<1>();
      before = stage;
      ring_.advance();
      if (b + 1 == p_.blocks) break;
      set(scales, bits);
      wait_full();
      load(codes, 0);
      unpack<0>(codes, scales, a[0]);
    }
    ptx::wgmma_wait<0>();
    pin_sums();
    // The last stage is nobody's any more.
  }

  __device__ void finish() {
    // Nobody reads the ring any more.
    ptx::named_sync(1 + kWarpgroups, kMathThreads);
    float factor[2], bias[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = tile_.row0 + first_ + 8 * h;
      factor[h] = 1.0f / kCodeUnit / power_[h];
      bias[h] = p_.out.bias != nullptr && row < p_.out.rows ? p_.out.bias[row] : 0.0f;
    }
    const auto* pairs = reinterpret_cast<const float2*>(units()) + thread_ % 4;
#pragma unroll
    for (int j = 0; j < kTokens / 8; ++j) {
      const float2 unit = pairs[4 * j];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float& v = sums_[4 * j + e];
        v = fmaf(v * factor[e / 2], e % 2 ? unit.y : unit.x, bias[e / 2]);
      }
    }
    store_tile<Out, kTokens, false>(
        sums_, shared_memory() + group_ * EpilogueTile<Out, kTokens>::kBytes, p_.out,
        {0, p_.out.tokens}, tile_.row0 + group_ * 64, tile_.token0, thread_, 1 + group_);
    ptx::bulk_store_wait_read<0>();  // shared memory must outlive them
  }

 private:
  __device__ static uint32_t shared() { return ptx::shared_address(shared_memory()); }
  __device__ static float* units() { return reinterpret_cast<float*>(shared_memory() + L::kUnits); }
  __device__ void wait_full() const {
    ptx::barrier_wait(shared() + L::kFull + ring_.stage * 8, ring_.phase);
  }
  // This warp has read the stage.
  __device__ void release(int stage) const {
    __syncwarp();
    if (thread_ % 32 == 0) ptx::barrier_arrive(shared() + L::kEmpty + stage * 8);
  }
  // Of the lane's group of the block, or of the last group there is.
  __device__ void fetch_scales(uint16_t (&bits)[2], int block) const {
    const uint16_t* tile_scales = p_.scales + int64_t{tile_.row0} * p_.groups;
    const int group = min(block * kBlockGroups + thread_ % 4, p_.groups - 1);
#pragma unroll
    for (int h = 0; h < 2; ++h) bits[h] = tile_scales[scales_[h] + group];
  }
  __device__ void set(RowScale (&scales)[2], const uint16_t (&bits)[2]) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) scales[h].set(bits[h], power_[h]);
  }
  // The lane's pieces of a half.
  __device__ void load(uint4 (&codes)[2], int half) const {
    const int piece = (2 * (thread_ % 4) + half) ^ (first_ % 8);
    const uint8_t* from = shared_memory() + L::kCodes + ring_.stage * L::kCodeBytes +
                          first_ * kBlockCols + piece * 16;
    codes[0] = *reinterpret_cast<const uint4*>(from);
    codes[1] = *reinterpret_cast<const uint4*>(from + 8 * kBlockCols);
  }
  // The A fragments of two k-steps.
  template <int kPart>
  __device__ static void unpack(const uint4 (&codes)[2], const RowScale (&scales)[2],
                                uint32_t (&a)[8]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint4& q = codes[h];
      const uint32_t words[2] = {kPart == 0 ? q.x : q.z, kPart == 0 ? q.y : q.w};
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        a[4 * s + h] = scales[h].expand(words[s]);
        a[4 * s + 2 + h] = scales[h].expand(words[s] >> 8);
      }
    }
    ptx::keep(a);
  }
  // Starts their products with the operand that x describes.
  __device__ void issue(const uint32_t (&a)[8], uint64_t x) {
    ptx::wgmma_fence();
    Mma::issue(sums_, &a[0], x, 1);
    Mma::issue(sums_, &a[4], x + 2, 1);
    ptx::wgmma_commit();
  }
  // Products write the sums behind the compiler's back: what reads or defines them stays outside.
  __device__ void pin_sums() {
#pragma unroll
    for (int i = 0; i < Mma::kRegs; ++i) ptx::keep(sums_[i]);
  }

  const HalfGroupParams& p_;
  Tile tile_;
  int group_, thread_;
  int first_;  // of the lane's two rows, in the tile
  float power_[2];
  int scales_[2];  // where theirs begin in those of the tile
  Ring<L::kStages> ring_;
  float sums_[Mma::kRegs] = {};
};

template <int kTokens, class Out>
__global__ __launch_bounds__(threads(kTokens),
                             1) void half_groups_kernel(const __grid_constant__ HalfGroupParams p) {
  using L = Layout<kTokens>;
  const uint32_t shared = ptx::shared_address(shared_memory());
  if (threadIdx.x == 0) {
    for (int s = 0; s < L::kStages; ++s) {
      ptx::barrier_init(shared + L::kFull + s * 8, 1);
      ptx::barrier_init(shared + L::kEmpty + s * 8, kMathThreads / 32);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x >= kMathThreads) {
    if constexpr (moves_registers(kTokens)) ptx::give_registers<32>();
    if (threadIdx.x < kMathThreads + 32 && ptx::elect_one()) {
      const Producer<kTokens> producer(p);
      producer.start();
      producer.run();
    }
  } else {
    if constexpr (moves_registers(kTokens)) ptx::take_registers<112>();
    Math<kTokens, Out> math(p);
    wait_for_previous();
    let_next_start();
    math.fetch_units();
    math.multiply();
    math.finish();
  }
}

template <int kTokens, class Out>
void start(HalfGroupParams& p, cudaStream_t stream) {
  constexpr DType kType = sizeof(Out) == 2 ? DType::kF16 : DType::kF32;
  p.token_tiles = (p.out.tokens + kTokens - 1) / kTokens;
  p.out.by_copy = p.out.rows * sizeof(Out) % 16 == 0;
  if (p.out.by_copy) {
    p.out.y_map =
        make_box_map(p.out.y, kType, p.out.tokens, p.out.rows,
                     EpilogueTile<Out, kTokens>::kRowBytes, EpilogueTile<Out, kTokens>::kChunk);
  }
  const unsigned row_tiles = blocks_for(p.out.rows, kRows);
  launch_chained(half_groups_kernel<kTokens, Out>,
                 dim3(row_tiles * static_cast<unsigned>(p.token_tiles)), threads(kTokens),
                 Layout<kTokens>::kBytes, p, stream);
}

// Shares of the tokens as equal as tiles allow.
template <class Out>
void start_tiles(HalfGroupParams& p, cudaStream_t stream) {
  const int shares = (p.out.tokens + kMostTokens - 1) / kMostTokens;
  const int tokens = (p.out.tokens + shares - 1) / shares;
  if (tokens <= 32) return start<32, Out>(p, stream);
  if (tokens <= 64) return start<64, Out>(p, stream);
  if (tokens <= 96) return start<96, Out>(p, stream);
  start<kMostTokens, Out>(p, stream);
}

}  // namespace

void launch_half_groups(const IntegerLinearParams& p, std::span<uint8_t> scratch,
                        cudaStream_t stream) {
  const WeightView& w = p.w;
  ATOM_CHECK(w.group == kGroup && p.x_groups == w.body / kGroup && w.row_scales != nullptr &&
                 p.x_stride % 16 == 0,
             "half_groups: operands do not fit together");
  // As many tokens at a time as there is room for, in whole tiles if it is large.
  constexpr int kStep = half_operands::kTokenStep;
  const int64_t fit = static_cast<int64_t>(scratch.size()) / half_operands::bytes(w.body, kStep);
  auto room = static_cast<int>(std::min<int64_t>(fit * kStep, 1 << 20));
  if (room >= kMostTokens) room = room / kMostTokens * kMostTokens;
  ATOM_CHECK(room > 0, "half_groups: scratch for eight tokens");
  const int element_bytes = p.halves ? 2 : 4, blocks = half_operands::blocks(w.body);
  for (int first = 0; first < p.tokens; first += room) {
    const int tokens = std::min(room, p.tokens - first);
    const int capacity = (tokens + kStep - 1) / kStep * kStep;
    auto* x = reinterpret_cast<uint16_t*>(scratch.data());
    auto* units = reinterpret_cast<float*>(x + half_operands::place(blocks, 0, 0, capacity));
    half_operands::launch({.codes = p.x + first * p.x_stride,
                           .stride = p.x_stride,
                           .scales = p.x_scales + int64_t{first} * p.x_groups,
                           .tokens = tokens,
                           .channels = w.body,
                           .x = x,
                           .capacity = capacity,
                           .units = units},
                          stream);
    HalfGroupParams params = {
        .codes = make_byte_map(w.codes, w.rows, w.body, kRows),
        .scales = w.scales,
        .row_powers = w.row_scales,
        .x = x,
        .units = units,
        .out = {.y_map = {},
                .by_copy = false,
                .y = static_cast<uint8_t*>(p.y) + int64_t{first} * w.rows * element_bytes,
                .bias = w.bias,
                .rows = w.rows,
                .tokens = tokens,
                .accumulate = p.accumulate,
                .gated = false},
        .groups = p.x_groups,
        .blocks = blocks,
        .capacity = capacity,
        .token_tiles = 0};
    p.halves ? start_tiles<__half>(params, stream) : start_tiles<float>(params, stream);
  }
}

}  // namespace atom::cuda
