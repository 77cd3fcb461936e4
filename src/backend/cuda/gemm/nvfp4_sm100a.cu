// gemm_nvfp4_sm100a: y = dequant(x * w^T) by tcgen05, NVFP4 on both sides.
//   x, w   E2M1 under E4M3 and INT8 outliers (nvfp4_sm100a_layout.h)
//   y      [M, N] f16 or f32
// Work: a CTA a tile of 128 channels x kTokens tokens, two of them a multiprocessor, each with one
// warp that brings operands, one that issues products and eight that finish them:
//
//   HBM -> L2 --bulk copies--> ring of stages, a block of K each
//          scales  --tcgen05.cp-->  tensor memory, columns of the stage's own
//          codes   --tcgen05.mma--> tensor memory, kTokens columns of sums
//          sums    --tcgen05.ld-->  registers --> y
//
// The outliers' integer sums come first, in the columns that the body's sums take when they have
// been fetched: with columns of their own two CTAs would not fit into tensor memory. Products read
// their scales in no order with later copies of scales, hence the stage's own columns, which are
// free when its products are done, as the stage is.
// Rounds: to y's type once, at the end. Bound: L2, from which a block's products want 18 KB; HBM
// for few tokens.
#include "backend/cuda/gemm/nvfp4_sm100a.h"
#include "backend/cuda/gemm/nvfp4_sm100a_layout.h"
#include "backend/cuda/ptx/sync.cuh"
#include "backend/cuda/ptx/tcgen05.cuh"
#include "backend/cuda/runtime/elements.cuh"
#include "backend/cuda/runtime/launch.cuh"
#include "base/check.h"

namespace atom::cuda {
namespace {

namespace layout = nvfp4_sm100a;

constexpr int kRows = layout::kBlockRows;  // of a tile
constexpr int kMostTokens = 128;           // of a tile: those of a block of scales
constexpr int kEpilogueWarps = 8, kProducerWarp = kEpilogueWarps, kIssuerWarp = kProducerWarp + 1;
constexpr int kThreads = 32 * (kIssuerWarp + 1);
constexpr int kCtas = 2;   // of a multiprocessor
constexpr int kSteps = 2;  // products along a block of K, of kStepBytes of a row each
constexpr int kStepBytes = layout::kRowBytes / kSteps;
constexpr int kScaleColumns = 4;  // of tensor memory: of 128 rows and a step
constexpr int kChunk = 16;        // tokens that leave tensor memory at once

struct Params {
  GemmArgs args;
  ExpertGroups experts = {};
};

// The weights that a CTA multiplies by, its first token, and the tokens that are its to write.
struct Share {
  const uint8_t* weights;
  const float *row_scales, *bias;
  int token0, first, end;
};

// Shared memory, in bytes from its 1024-aligned start, and columns of tensor memory.
template <int kTokens>
struct Layout {
  static constexpr int kTokenBytes = kTokens * layout::kRowBytes;
  static constexpr int kStages = kTokens > 32 ? 6 : 9;
  // Of a stage.
  static constexpr int kCodes = 0, kScales = layout::kCodeBytes;
  static constexpr int kTokenCodes = layout::kBlockBytes;
  static constexpr int kTokenScales = kTokenCodes + kTokenBytes;
  static constexpr int kStageBytes = kTokenScales + layout::kScaleBytes;
  static constexpr int kFull = kStages * kStageBytes;  // barriers, 8 bytes each
  static constexpr int kEmpty = kFull + kStages * 8;
  static constexpr int kOutliersSummed = kEmpty + kStages * 8;
  static constexpr int kOutliersTaken = kOutliersSummed + 8;
  static constexpr int kSummed = kOutliersTaken + 8;
  static constexpr int kAddress = kSummed + 8;  // of the first column
  static constexpr int kBytes = kAddress + 8;
  static_assert(kStageBytes % 1024 == 0);
  // A multiprocessor has 228 KB, of which each CTA costs one.
  static_assert(kBytes <= (228 << 10) / kCtas - (1 << 10));

  static constexpr int kSums = 0, kStageScales = kTokens;
  static constexpr int kStageColumns = 2 * kSteps * kScaleColumns;  // weights', then tokens'
  static constexpr int kColumns = 256;
  static_assert(kStageScales + kStages * kStageColumns <= kColumns && kCtas * kColumns <= 512);
};

template <int kTokens>
class Tile {
  using L = Layout<kTokens>;
  static constexpr int kWarpTokens = kTokens / (kEpilogueWarps / 4);
  static_assert(kWarpTokens % kChunk == 0);

 public:
  __device__ Tile(const Params& p, const Share& share)
      : args_(p.args),
        share_(share),
        blocks_(args_.shape.blocks()),
        shared_(ptx::shared_address(dynamic_shared())),
        warp_(static_cast<int>(threadIdx.x) / 32),
        row0_(static_cast<int>(blockIdx.x) * kRows) {}

  __device__ void run() {
    if (threadIdx.x == 0) init_barriers();
    if (warp_ == kIssuerWarp) ptx::tcgen05_allocate<L::kColumns>(shared_ + L::kAddress);
    ptx::tcgen05_fence_before();
    __syncthreads();
    ptx::tcgen05_fence_after();
    columns_ = *reinterpret_cast<const uint32_t*>(dynamic_shared() + L::kAddress);
    if (warp_ == kProducerWarp) {
      if (ptx::elect_one()) produce();
      __syncwarp();
    } else if (warp_ == kIssuerWarp) {
      if (ptx::elect_one()) issue();
      __syncwarp();
    } else {
      finish();
    }
    ptx::tcgen05_fence_before();
    __syncthreads();
    ptx::tcgen05_fence_after();
    if (warp_ == kIssuerWarp) ptx::tcgen05_free<L::kColumns>(columns_);
  }

 private:
  __device__ void init_barriers() const {
    for (int s = 0; s < L::kStages; ++s) {
      ptx::barrier_init(full(s), 1);
      ptx::barrier_init(empty(s), 1);
    }
    ptx::barrier_init(shared_ + L::kOutliersSummed, 1);
    ptx::barrier_init(shared_ + L::kOutliersTaken, 32 * kEpilogueWarps);
    ptx::barrier_init(shared_ + L::kSummed, 1);
    ptx::barrier_init_fence();
  }

  // --- the ring: s counts the blocks of K, the outliers' first
  __device__ uint32_t stage(int s) const { return shared_ + s % L::kStages * L::kStageBytes; }
  __device__ uint32_t full(int s) const { return shared_ + L::kFull + s % L::kStages * 8; }
  __device__ uint32_t empty(int s) const { return shared_ + L::kEmpty + s % L::kStages * 8; }
  // The parity of the phase that block s brings a stage's barriers through.
  __device__ static uint32_t phase(int s) { return s / L::kStages % 2; }
  __device__ bool is_body(int s) const { return s >= args_.shape.outlier_blocks; }

  // --- the producer's thread
  __device__ void produce() const {
    // Weights, which no kernel writes, while the kernel before this one still runs.
    const int ready = min(L::kStages, blocks_);
    for (int s = 0; s < ready; ++s) bring_weights(s);
    wait_for_previous();
    for (int s = 0; s < ready; ++s) bring_tokens(s);
    for (int s = ready; s < blocks_; ++s) {
      ptx::barrier_wait(empty(s), phase(s - L::kStages));
      bring_weights(s);
      bring_tokens(s);
    }
  }
  __device__ void bring_weights(int s) const {
    const bool body = is_body(s);
    const int bytes = body ? layout::kBlockBytes : layout::kCodeBytes;
    ptx::barrier_expect(full(s), bytes + L::kTokenBytes + (body ? layout::kScaleBytes : 0));
    const int block = body ? s - args_.shape.outlier_blocks : args_.shape.body_blocks + s;
    const int64_t number = static_cast<int64_t>(blockIdx.x) * blocks_ + block;
    ptx::bulk_copy(stage(s) + L::kCodes, share_.weights + number * layout::kBlockBytes, bytes,
                   full(s));
  }
  __device__ void bring_tokens(int s) const {
    const int64_t capacity = args_.capacity;
    const int8_t* x = args_.x;
    int block = s;
    if (is_body(s)) {
      block -= args_.shape.outlier_blocks;
      ptx::bulk_copy(stage(s) + L::kTokenScales,
                     x + layout::activation_scales(args_.shape, block, share_.token0, capacity),
                     layout::kScaleBytes, full(s));
    } else {
      x += layout::outlier_start(args_.shape, capacity);
    }
    ptx::bulk_copy(stage(s) + L::kTokenCodes,
                   x + (block * capacity + share_.token0) * layout::kRowBytes, L::kTokenBytes,
                   full(s));
  }

  // --- the issuer's thread
  __device__ void issue() const {
    const int outlier_blocks = args_.shape.outlier_blocks;
    for (int s = 0; s < outlier_blocks; ++s) multiply(s);
    if (outlier_blocks > 0) {
      ptx::tcgen05_commit(shared_ + L::kOutliersSummed);
      wait(shared_ + L::kOutliersTaken, 0);
    }
    for (int s = outlier_blocks; s < blocks_; ++s) multiply(s);
    ptx::tcgen05_commit(shared_ + L::kSummed);
  }
  // Until others have arrived whose use of tensor memory comes before this thread's.
  __device__ static void wait(uint32_t barrier, uint32_t parity) {
    ptx::barrier_wait(barrier, parity);
    ptx::tcgen05_fence_after();
  }
  __device__ void multiply(int s) const {
    wait(full(s), phase(s));
    constexpr uint32_t kGroupBytes = 8 * layout::kRowBytes;
    const uint64_t rows =
        ptx::shared_matrix(stage(s) + L::kCodes, kGroupBytes, ptx::Swizzle::k64Bytes);
    const uint64_t tokens =
        ptx::shared_matrix(stage(s) + L::kTokenCodes, kGroupBytes, ptx::Swizzle::k64Bytes);
    const uint32_t sums = columns_ + L::kSums;
    if (is_body(s)) {
      const uint32_t row_scales = columns_ + L::kStageScales + s % L::kStages * L::kStageColumns;
      const uint32_t token_scales = row_scales + kSteps * kScaleColumns;
#pragma unroll
      for (int k = 0; k < kSteps; ++k) {
        copy_scales(row_scales + k * kScaleColumns, stage(s) + L::kScales, k);
        copy_scales(token_scales + k * kScaleColumns, stage(s) + L::kTokenScales, k);
      }
#pragma unroll
      for (int k = 0; k < kSteps; ++k) {
        ptx::tcgen05_mma_nvfp4(sums, rows + k * kStepBytes / 16, tokens + k * kStepBytes / 16,
                               ptx::nvfp4_product<kRows, kTokens>(), row_scales + k * kScaleColumns,
                               token_scales + k * kScaleColumns,
                               s > args_.shape.outlier_blocks || k > 0);
      }
    } else {
#pragma unroll
      for (int k = 0; k < kSteps; ++k) {
        ptx::tcgen05_mma_s8(sums, rows + k * kStepBytes / 16, tokens + k * kStepBytes / 16,
                            ptx::s8_product<kRows, kTokens>(), s > 0 || k > 0);
      }
    }
    // For a block that will take the stage: nothing may arrive in shared memory that is given back.
    if (s + L::kStages < blocks_) ptx::tcgen05_commit(empty(s));
  }
  __device__ static void copy_scales(uint32_t columns, uint32_t scales, int step) {
    constexpr uint32_t kGroupBytes = 8 * 16;
    ptx::tcgen05_copy_scales(columns, ptx::shared_matrix(scales + step * layout::kStepScaleBytes,
                                                         kGroupBytes, ptx::Swizzle::kNone));
  }

  // --- the epilogue's warps: a thread a channel, a warp half of the tokens
  // Where a thread finds its sums, and whose they are.
  struct Lane {
    uint32_t sums;
    int row, token0;
  };
  __device__ void finish() const {
    wait_for_previous();
    let_next_start();
    const int lane0 = warp_ % 4 * 32, token0 = warp_ / 4 * kWarpTokens;
    const Lane lane = {.sums = columns_ + L::kSums + (static_cast<uint32_t>(lane0) << 16) + token0,
                       .row = row0_ + lane0 + static_cast<int>(threadIdx.x) % 32,
                       .token0 = share_.token0 + token0};
    const int row = min(lane.row, static_cast<int>(args_.rows) - 1);
    float y[kWarpTokens];
#pragma unroll
    for (float& value : y) value = share_.bias == nullptr ? 0.0f : share_.bias[row];
    if (args_.shape.outlier_blocks > 0) {
      wait(shared_ + L::kOutliersSummed, 0);
      add<int32_t>(y, lane, share_.row_scales[nvfp4::outlier_scale_offset(args_.rows) + row],
                   args_.x_outlier_scales);
      ptx::tcgen05_fence_before();
      ptx::barrier_arrive(shared_ + L::kOutliersTaken);
    }
    wait(shared_ + L::kSummed, 0);
    // Codes are twice E2M1's numbers.
    add<float>(y, lane, 4.0f * share_.row_scales[row], args_.x_scales);
    if (args_.y_type == DType::kF16) {
      store<true>(y, lane);
    } else {
      store<false>(y, lane);
    }
  }
  // y += the sums times both scales. All that is read comes before all that is written, which the
  // compiler could not know to be elsewhere.
  template <class Sum>
  __device__ static void add(float (&y)[kWarpTokens], const Lane& lane, float row_scale,
                             const float* token_scales) {
#pragma unroll
    for (int t = 0; t < kWarpTokens; t += kChunk) {
      uint32_t sums[kChunk];
      ptx::tcgen05_load(lane.sums + t, sums);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        const float sum = static_cast<float>(std::bit_cast<Sum>(sums[i]));
        y[t + i] = fmaf(sum * row_scale, token_scales[lane.token0 + t + i], y[t + i]);
      }
    }
  }
  template <bool kHalves>
  __device__ void store(float (&y)[kWarpTokens], const Lane& lane) const {
    // Of this warp's tokens those that are the CTA's to write, none of a row behind the last.
    const int first = share_.first - lane.token0;
    const int end = lane.row < args_.rows ? share_.end - lane.token0 : 0;
    const auto each = [&](const auto& visit) {
      int64_t at = lane.token0 * args_.rows + lane.row;
#pragma unroll
      for (int t = 0; t < kWarpTokens; ++t, at += args_.rows) {
        if (t >= first && t < end) visit(y[t], at);
      }
    };
    if (args_.accumulate) {
      each([&](float& value, int64_t i) { value += element(args_.y, kHalves, i); });
    }
    each([&](float value, int64_t i) { store_element(args_.y, kHalves, i, value, false); });
  }

  const GemmArgs& args_;
  const Share share_;
  const int blocks_;  // along K
  const uint32_t shared_;
  uint32_t columns_ = 0;
  const int warp_, row0_;
};

template <int kTokens>
__global__ __launch_bounds__(kThreads, kCtas) void gemm_nvfp4_sm100a_kernel(
    const __grid_constant__ Params p) {
  const GemmArgs& a = p.args;
  Tile<kTokens>(p, {.weights = a.weights,
                    .row_scales = a.row_scales,
                    .bias = a.bias,
                    .token0 = static_cast<int>(blockIdx.y) * kTokens,
                    .first = 0,
                    .end = static_cast<int>(a.tokens)})
      .run();
}

// The grid's third dimension is the experts; tiles behind an expert's last row have nothing to do.
// An expert's first tile begins where a block of scales does, and may begin with another's tokens.
__global__ __launch_bounds__(kThreads, kCtas) void gemm_nvfp4_sm100a_grouped_kernel(
    const __grid_constant__ Params p) {
  wait_for_previous();  // for the offsets
  const int expert = static_cast<int>(blockIdx.z);
  const int first = p.experts.offsets[expert], end = p.experts.offsets[expert + 1];
  const int token0 = first / kMostTokens * kMostTokens + static_cast<int>(blockIdx.y) * kMostTokens;
  if (first == end || token0 >= end) return;
  const WeightView& w = p.experts.w[expert];
  Tile<kMostTokens>(p, {.weights = w.codes,
                        .row_scales = w.row_scales,
                        .bias = w.bias,
                        .token0 = token0,
                        .first = first,
                        .end = end})
      .run();
}

void check(const GemmArgs& args) {
  ATOM_CHECK(args.capacity % 256 == 0 && args.tokens <= args.capacity, "activation capacity");
  ATOM_CHECK(args.shape.body_blocks > 0 && args.shape.groups == nvfp4::kShapeGroups,
             "blocks of NVFP4");
  ATOM_CHECK(args.y_type == DType::kF16 || args.y_type == DType::kF32, "type of y");
}

}  // namespace

void launch_nvfp4_sm100a(const GemmArgs& args, cudaStream_t stream) {
  check(args);
  if (args.tokens == 0) return;
  constexpr int kFew = 32;
  const unsigned rows = blocks_for(args.rows, kRows);
  if (args.tokens <= kFew) {
    return launch_chained(gemm_nvfp4_sm100a_kernel<kFew>, dim3(rows), kThreads,
                          Layout<kFew>::kBytes, Params{.args = args}, stream);
  }
  launch_chained(gemm_nvfp4_sm100a_kernel<kMostTokens>,
                 dim3(rows, blocks_for(args.tokens, kMostTokens)), kThreads,
                 Layout<kMostTokens>::kBytes, Params{.args = args}, stream);
}

void launch_grouped_nvfp4_sm100a(const GemmArgs& args, const ExpertGroups& experts,
                                 cudaStream_t stream) {
  check(args);
  if (args.tokens == 0) return;
  const int64_t most = experts.most_tokens + kMostTokens - 1;
  launch_chained(gemm_nvfp4_sm100a_grouped_kernel,
                 dim3(blocks_for(args.rows, kRows), blocks_for(most, kMostTokens),
                      static_cast<unsigned>(experts.count)),
                 kThreads, Layout<kMostTokens>::kBytes, Params{.args = args, .experts = experts},
                 stream);
}

}  // namespace atom::cuda
