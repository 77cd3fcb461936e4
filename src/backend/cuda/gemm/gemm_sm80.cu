// gemm_sm80: y = dequant(x * w^T) by mma.sync, for chips without wgmma.
//   w4a8   x s8 (w4a8_layout.h), w u4 in two levels   -> u8 x s8 products, s32 sums over all of K
//   w4a4   x s4, w s4 (w4a4_s4_layout.h)              -> s4 x s4 products, f32 sums of groups
//   fp4    x, w E2M1 (the same)                       -> E2M1 products, f32 sums of groups
//   nvfp4  x, w E2M1 under E4M3 (nvfp4_layout.h)     -> products of numbers and scales, f32 sums
//   all    INT8 outlier columns as the tail of the same kernel; y [M, N] f16 or f32
// Work: a CTA a tile of 128 channels x kTokens tokens; a warp 32 channels x at most 64 tokens:
//
//   HBM -> L2 --cp.async--> ring of stages, a block of K each
//          weights  --LDS.128--> A operands (w4a8: --and, multiply-add--> u8)
//          x        --ldmatrix--> B operands, eight tokens at a time
//
// Products of E2M1 are one instruction on sm_120 and two of bytes elsewhere; those of NVFP4 are
// one that scales as well (ptx/mma_nvfp4.cuh).
// An integer sum becomes a float without a conversion, which runs at a quarter of the rate on
// sm_80: tensor cores add to 1.5 * 2^23 as an integer, whose bits are then that float plus the sum.
// Exact up to 2^22: 2^13 a group of INT4 products, 2^20 for 64 outlier columns.
// Rounds: to y's type once, at the end. Bound: tensor cores; HBM for few tokens.
#include <cuda_fp16.h>

#include <type_traits>

#include "backend/cuda/gemm/gemm_sm80_kernels.h"
#include "backend/cuda/gemm/nvfp4_layout.h"
#include "backend/cuda/gemm/w4a8_codes.cuh"
#include "backend/cuda/ptx/mma.cuh"
#include "backend/cuda/ptx/mma_nvfp4.cuh"
#include "backend/cuda/ptx/sync.cuh"
#include "backend/cuda/runtime/elements.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

using w4a8::kScaleOffset, w4a8::Shape;

constexpr int kRowWarps = 4, kRowTiles = 2;        // of 16 channels a warp
constexpr int kRows = kRowWarps * kRowTiles * 16;  // of a tile
constexpr float kBias = 12582912.0f;               // 1.5 * 2^23
constexpr int32_t kBiasBits = 0x4b400000;

struct Params {
  GemmArgs args;
  bool halves;  // of y
  ExpertGroups experts = {};
};

// Tiles of tokens may begin where the swizzles of both formats repeat.
constexpr int kTokenStep = 8;

// The weights that a CTA multiplies by, its first token, and the tokens that are its to write.
struct Share {
  const uint8_t* weights;
  const float *row_scales, *bias;
  int token0, first, end;
};

// A stage holds two blocks of weights, a block of the tokens' codes and, for w4a4, their scales.
template <Sm80Format kFormat, int kGroups, int kTokens>
struct Layout {
  static constexpr bool kNibbles = kFormat != Sm80Format::kW4A8;  // on both sides
  static constexpr int kWarpTokens = kTokens < 64 ? kTokens : 64;
  static constexpr int kThreads = 32 * kRowWarps * (kTokens / kWarpTokens);
  static constexpr int kStages = kTokens > 64 ? 3 : 4;
  static constexpr int kBlockBytes = kScaleOffset + kGroups * w4a8::kScaleBytes;
  static constexpr int kWeightBytes = kRows / w4a8::kBlockRows * kBlockBytes;
  static constexpr int kActBytes =
      kTokens * w4a8::kActBlockBytes;  // of outliers; nibbles: half of it
  static constexpr bool kNvFp4 = kFormat == Sm80Format::kNvFp4;
  static constexpr int kScaleBytes = kNvFp4     ? kTokens * nvfp4::kBlockGroups
                                     : kNibbles ? kTokens * 4
                                                : 0;
  static constexpr int kStageBytes = kWeightBytes + kActBytes + kScaleBytes;
  static constexpr int kBytes = kStages * kStageBytes;
};

// Where the sums of a step's body come together, and what becomes of them.
template <Sm80Format kFormat, int kGroups, int kTokens>
class Tile {
  using L = Layout<kFormat, kGroups, kTokens>;
  static constexpr int kColumns = L::kWarpTokens / 8;  // of eight tokens
  static constexpr bool kNibbles = L::kNibbles, kNvFp4 = L::kNvFp4;
  using Sum = std::conditional_t<kNibbles, float, int32_t>;

 public:
  __device__ Tile(const Params& p, const Share& share)
      : p_(p),
        share_(share),
        shape_(p.args.shape),
        thread_(static_cast<int>(threadIdx.x)),
        lane_(thread_ % 32),
        row_warp_(thread_ / 32 % kRowWarps),
        warp_token_(thread_ / 32 / kRowWarps * L::kWarpTokens),
        row0_(static_cast<int>(blockIdx.x) * kRows) {}

  __device__ void run() {
    const int steps = shape_.blocks();
#pragma unroll
    for (int s = 0; s < L::kStages - 1; ++s) bring(s);
    for (int s = 0; s < shape_.body_blocks; ++s) add_body(next(s));
    float v[kRowTiles][kColumns][4];
    to_float(v);
    for (int s = shape_.body_blocks; s < steps; ++s) {
      add_outliers(v, next(s), (s - shape_.body_blocks) % 2);
    }
    store(v);
  }

 private:
  // --- the ring

  __device__ uint8_t* stage(int s) const {
    return dynamic_shared() + s % L::kStages * L::kStageBytes;
  }
  // Starts to bring block s of K; a group of copies even where there is none.
  __device__ void bring(int s) const {
    if (s < shape_.blocks()) {
      const GemmArgs& a = p_.args;
      const uint32_t to = ptx::shared_address(stage(s));
      const int last_block =
          static_cast<int>((a.rows + w4a8::kBlockRows - 1) / w4a8::kBlockRows) - 1;
#pragma unroll
      for (int i = 0; i < kRows / w4a8::kBlockRows; ++i) {
        const int block = min(row0_ / w4a8::kBlockRows + i, last_block);
        copy(to + i * L::kBlockBytes,
             share_.weights + (static_cast<int64_t>(block) * shape_.blocks() + s) * L::kBlockBytes,
             L::kBlockBytes);
      }
      const bool body = s < shape_.body_blocks;
      const int token_bytes = kNibbles && body ? w4a4_s4::kActBlockBytes : w4a8::kActBlockBytes;
      const int8_t* x = a.x;
      int64_t block = s;  // of activations
      if (!body) block = (kNibbles ? 0 : shape_.body_blocks) + (s - shape_.body_blocks) / 2;
      if (kNibbles && !body) {
        x += kNvFp4 ? nvfp4::outlier_start(shape_, a.capacity)
                    : w4a4_s4::outlier_start(shape_, a.capacity);
      }
      // An expert's last tile may reach beyond the buffers.
      const int tokens = min(kTokens, static_cast<int>(a.capacity) - share_.token0);
      copy(to + L::kWeightBytes, x + (block * a.capacity + share_.token0) * token_bytes,
           tokens * token_bytes);
      if (kNvFp4 && body) {
        copy(to + L::kWeightBytes + L::kActBytes,
             x + nvfp4::activation_scale_byte(shape_, block, share_.token0, 0, a.capacity),
             tokens * nvfp4::kBlockGroups);
      } else if (kNibbles && body) {
        copy(to + L::kWeightBytes + L::kActBytes, a.x_scales + block * a.capacity + share_.token0,
             tokens * 4);
      }
    }
    ptx::copy16_commit();
  }
  __device__ void copy(uint32_t to, const void* from, int bytes) const {
    for (int at = thread_ * 16; at < bytes; at += L::kThreads * 16) {
      ptx::copy16(to + at, static_cast<const uint8_t*>(from) + at);
    }
  }
  // Block s, when it is there; a later one takes the place of the one before it.
  __device__ const uint8_t* next(int s) const {
    ptx::copy16_wait_for<L::kStages - 2>();
    __syncthreads();
    bring(s + L::kStages - 1);
    return stage(s);
  }

  // --- operands

  // This thread's number among the 128 of its weight block, for row tile r.
  __device__ int block_thread(int r) const { return (row_warp_ * kRowTiles + r) % 4 * 32 + lane_; }
  __device__ const uint8_t* weight_block(const uint8_t* stage, int r) const {
    return stage + (row_warp_ * kRowTiles + r) / 4 * L::kBlockBytes;
  }
  // 64 columns of eight bytes-wide tokens, or 128 of nibbles: half of a byte block.
  __device__ void load_tokens(const uint8_t* stage, int j, int half, bool nibbles,
                              uint32_t (&b)[4]) const {
    const int token = warp_token_ + 8 * j + lane_ % 8, piece = lane_ / 8;
    const int byte = nibbles
                         ? token * w4a4_s4::kActBlockBytes + (piece ^ (token / 2 % 4)) * 16
                         : token * w4a8::kActBlockBytes + ((4 * half + piece) ^ (token % 8)) * 16;
    ptx::load_matrix(ptx::shared_address(stage + L::kWeightBytes) + byte, b);
  }

  // --- the body

  __device__ void add_body(const uint8_t* stage) {
    if constexpr (kNvFp4) {
      add_block_scaled(stage);
    } else if constexpr (kNibbles) {
      add_groups(stage);
    } else {
      add_two_level(stage);
    }
  }
  __device__ void add_two_level(const uint8_t* stage) {
    uint32_t a[kRowTiles][16];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      w4a8::Codes<kGroups> codes;
      codes.load(weight_block(stage, r), block_thread(r));
#pragma unroll
      for (int k = 0; k < 4; ++k) codes.unpack(k, &a[r][4 * k]);
    }
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t b[4];
        load_tokens(stage, j, half, false, b);
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
          for (int k = 0; k < 2; ++k) {
            ptx::mma_s8<true>(sums_[r][j], &a[r][8 * half + 4 * k], b[2 * k], b[2 * k + 1]);
          }
        }
      }
    }
  }
  __device__ void add_groups(const uint8_t* stage) {
    // Sums of E2M1 are those of its numbers, a quarter of the codes'.
    constexpr float kProductUnits = kFormat == Sm80Format::kFp4 ? 4.0f : 1.0f;
    uint32_t a[kRowTiles][8];
    float row_scale[kRowTiles][2];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      const uint8_t* block = weight_block(stage, r);
      const int thread = block_thread(r);
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        *reinterpret_cast<uint4*>(&a[r][4 * k]) =
            reinterpret_cast<const uint4*>(block + 2048 * k)[thread];
      }
      const float2 pair =
          __half22float2(*reinterpret_cast<const __half2*>(block + kScaleOffset + thread / 4 * 4));
      row_scale[r][0] = pair.x * kProductUnits;
      row_scale[r][1] = pair.y * kProductUnits;
    }
    const auto* token_scales = reinterpret_cast<const float2*>(
        stage + L::kWeightBytes + L::kActBytes + (warp_token_ + 2 * (lane_ % 4)) * 4);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      uint32_t b[4];
      load_tokens(stage, j, 0, true, b);
      const float2 scale = token_scales[4 * j];
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        float sum[4];
        multiply_group(sum, a[r], b);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sums_[r][j][e] =
              fmaf(sum[e], (e % 2 ? scale.y : scale.x) * row_scale[r][e / 2], sums_[r][j][e]);
        }
      }
    }
  }
  __device__ void add_block_scaled(const uint8_t* stage) {
    RowOperands a[kRowTiles];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      const uint8_t* block = weight_block(stage, r);
      const int thread = block_thread(r);
      const int row = thread / 32 * 16 + lane_ / 4 + 8 * (lane_ % 2), step = lane_ / 2 % 2;
      const uint32_t scales =
          *reinterpret_cast<const uint32_t*>(block + nvfp4::weight_scale_place(row, 4 * step));
      const uint4 codes[2] = {reinterpret_cast<const uint4*>(block)[thread],
                              reinterpret_cast<const uint4*>(block + 2048)[thread]};
      a[r].first.set(&codes[0].x, scales);
      a[r].second.set(&codes[1].x, scales);
    }
    const auto* token_scales = reinterpret_cast<const uint32_t*>(
        stage + L::kWeightBytes + L::kActBytes + (warp_token_ + lane_ / 4) * nvfp4::kBlockGroups);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      uint32_t b[4];
      load_tokens(stage, j, 0, true, b);
      const uint32_t scales = token_scales[8 * j * nvfp4::kBlockGroups / 4 + lane_ % 2];
      ptx::NvFp4Columns<0> first;
      ptx::NvFp4Columns<1> second;
      first.set(&b[0], scales);
      second.set(&b[2], scales);
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        ptx::mma_nvfp4(sums_[r][j], a[r].first, first);
        ptx::mma_nvfp4(sums_[r][j], a[r].second, second);
      }
    }
  }
  // Of a block's two k-steps.
  struct RowOperands {
    ptx::NvFp4Rows<0> first;
    ptx::NvFp4Rows<1> second;
  };
  // The sums of a block's 128 columns.
  __device__ static void multiply_group(float (&sum)[4], const uint32_t (&a)[8],
                                        const uint32_t (&b)[4]) {
    if constexpr (kFormat == Sm80Format::kFp4) {
#pragma unroll
      for (float& s : sum) s = 0;
      ptx::mma_e2m1(sum, &a[0], b[0], b[1]);
      ptx::mma_e2m1(sum, &a[4], b[2], b[3]);
    } else {
      int32_t integers[4] = {kBiasBits, kBiasBits, kBiasBits, kBiasBits};
      ptx::mma_s4(integers, &a[0], b[0], b[1]);
      ptx::mma_s4(integers, &a[4], b[2], b[3]);
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[e] = unbiased(integers[e]);
    }
  }
  __device__ static float unbiased(int32_t sum) { return __int_as_float(sum) - kBias; }

  // --- the end

  // Token 8j + 2(l%4) + i of this warp.
  __device__ int token(int j, int i) const {
    return share_.token0 + warp_token_ + 8 * j + 2 * (lane_ % 4) + i;
  }
  // Whose values may be read.
  __device__ int near_token(int j, int i) const {
    return min(token(j, i), static_cast<int>(p_.args.capacity) - 1);
  }
  __device__ int row(int r, int h) const {
    return row0_ + (row_warp_ * kRowTiles + r) * 16 + lane_ / 4 + 8 * h;
  }
  __device__ int near_row(int r, int h) const {
    return min(row(r, h), static_cast<int>(p_.args.rows) - 1);
  }
  // What the body's sums stand for, up to the row scale where that comes last.
  __device__ void to_float(float (&v)[kRowTiles][kColumns][4]) const {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if constexpr (kNvFp4) {
          // Codes are twice E2M1's numbers.
          const float unit = 4.0f * p_.args.x_scales[near_token(j, e % 2)];
          for (int r = 0; r < kRowTiles; ++r) {
            v[r][j][e] = sums_[r][j][e] * (unit * share_.row_scales[near_row(r, e / 2)]);
          }
        } else if constexpr (kNibbles) {
          for (int r = 0; r < kRowTiles; ++r) v[r][j][e] = sums_[r][j][e];
        } else {
          const int t = near_token(j, e % 2);
          const int32_t x_sum = 128 * p_.args.x_sums[t];
          const float scale = p_.args.x_scales[t];
          for (int r = 0; r < kRowTiles; ++r) {
            v[r][j][e] = static_cast<float>(sums_[r][j][e] - x_sum) * scale;
          }
        }
      }
    }
  }
  // Adds 64 outlier columns, one half of a block of activations.
  __device__ void add_outliers(float (&v)[kRowTiles][kColumns][4], const uint8_t* stage,
                               int half) const {
    uint32_t a[kRowTiles][8];
    float row_scale[kRowTiles][2];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        *reinterpret_cast<uint4*>(&a[r][4 * k]) =
            reinterpret_cast<const uint4*>(weight_block(stage, r) + 2048 * k)[block_thread(r)];
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float* scales =
            share_.row_scales + (kNvFp4 ? nvfp4::outlier_scale_offset(p_.args.rows) : 0);
        row_scale[r][h] = kNibbles ? scales[near_row(r, h)] : 1.0f;
      }
    }
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      uint32_t b[4];
      load_tokens(stage, j, half, false, b);
      const float scale[2] = {p_.args.x_outlier_scales[near_token(j, 0)],
                              p_.args.x_outlier_scales[near_token(j, 1)]};
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        int32_t sum[4] = {kBiasBits, kBiasBits, kBiasBits, kBiasBits};
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          ptx::mma_s8<false>(sum, &a[r][4 * k], b[2 * k], b[2 * k + 1]);
        }
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          v[r][j][e] = fmaf(unbiased(sum[e]) * row_scale[r][e / 2], scale[e % 2], v[r][j][e]);
        }
      }
    }
  }
  __device__ void store(const float (&v)[kRowTiles][kColumns][4]) const {
    const GemmArgs& a = p_.args;
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int n = row(r, h);
        if (n >= a.rows) continue;
        const float scale = kNibbles ? 1.0f : share_.row_scales[n];
        const float bias = share_.bias == nullptr ? 0.0f : share_.bias[n];
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            if (token(j, i) < share_.first || token(j, i) >= share_.end) continue;
            store_element(a.y, p_.halves, token(j, i) * a.rows + n,
                          fmaf(v[r][j][2 * h + i], scale, bias), a.accumulate);
          }
        }
      }
    }
  }

  const Params& p_;
  const Share share_;
  const Shape& shape_;
  int thread_, lane_, row_warp_, warp_token_, row0_;
  Sum sums_[kRowTiles][kColumns][4] = {};
};

template <Sm80Format kFormat, int kGroups, int kTokens>
__global__ __launch_bounds__(Layout<kFormat, kGroups, kTokens>::kThreads,
                             1) void gemm_sm80_kernel(const __grid_constant__ Params p) {
  const GemmArgs& a = p.args;
  Tile<kFormat, kGroups, kTokens>(p, {.weights = a.weights,
                                      .row_scales = a.row_scales,
                                      .bias = a.bias,
                                      .token0 = static_cast<int>(blockIdx.y) * kTokens,
                                      .first = 0,
                                      .end = static_cast<int>(a.tokens)})
      .run();
}

// The grid's third dimension is the experts; tiles behind an expert's last row have nothing to do.
template <Sm80Format kFormat, int kGroups, int kTokens>
__global__ __launch_bounds__(Layout<kFormat, kGroups, kTokens>::kThreads,
                             1) void gemm_sm80_grouped_kernel(const __grid_constant__ Params p) {
  const int expert = static_cast<int>(blockIdx.z);
  const int first = p.experts.offsets[expert], end = p.experts.offsets[expert + 1];
  const int token0 = first / kTokenStep * kTokenStep + static_cast<int>(blockIdx.y) * kTokens;
  if (first == end || token0 >= end) return;
  const WeightView& w = p.experts.w[expert];
  Tile<kFormat, kGroups, kTokens>(p, {.weights = w.codes,
                                      .row_scales = w.row_scales,
                                      .bias = w.bias,
                                      .token0 = token0,
                                      .first = first,
                                      .end = end})
      .run();
}

template <Sm80Format kFormat, int kGroups, int kTokens>
void start(const Params& p, cudaStream_t stream) {
  using L = Layout<kFormat, kGroups, kTokens>;
  const unsigned rows = blocks_for(p.args.rows, kRows);
  if (p.experts.count == 0) {
    launch(gemm_sm80_kernel<kFormat, kGroups, kTokens>,
           dim3(rows, blocks_for(p.args.tokens, kTokens)), L::kThreads, L::kBytes, p, stream);
  } else {
    const int64_t most = p.experts.most_tokens + kTokenStep - 1;
    launch(gemm_sm80_grouped_kernel<kFormat, kGroups, kTokens>,
           dim3(rows, blocks_for(most, kTokens), static_cast<unsigned>(p.experts.count)),
           L::kThreads, L::kBytes, p, stream);
  }
}

template <Sm80Format kFormat, int kGroups>
void pick(const Params& p, int64_t tokens, cudaStream_t stream) {
  if (tokens <= 8) return start<kFormat, kGroups, 8>(p, stream);
  if (tokens <= 64) return start<kFormat, kGroups, 32>(p, stream);
  start<kFormat, kGroups, 128>(p, stream);
}

void pick(Sm80Format format, const Params& p, int64_t tokens, cudaStream_t stream) {
  if (format == Sm80Format::kW4A4) return pick<Sm80Format::kW4A4, 1>(p, tokens, stream);
  if (format == Sm80Format::kFp4) return pick<Sm80Format::kFp4, 1>(p, tokens, stream);
  if (format == Sm80Format::kNvFp4) {
    return pick<Sm80Format::kNvFp4, nvfp4::kShapeGroups>(p, tokens, stream);
  }
  if (p.args.shape.groups == 1) return pick<Sm80Format::kW4A8, 1>(p, tokens, stream);
  if (p.args.shape.groups == 2) return pick<Sm80Format::kW4A8, 2>(p, tokens, stream);
  pick<Sm80Format::kW4A8, 4>(p, tokens, stream);
}

}  // namespace

void start_gemm_sm80(Sm80Format format, const GemmArgs& args, cudaStream_t stream) {
  pick(format, {.args = args, .halves = args.y_type == DType::kF16}, args.tokens, stream);
}

void start_grouped_gemm_sm80(Sm80Format format, const GemmArgs& args, const ExpertGroups& experts,
                             cudaStream_t stream) {
  // Tiles for the rows that an expert has on average.
  pick(format, {.args = args, .halves = args.y_type == DType::kF16, .experts = experts},
       args.tokens / experts.count, stream);
}

}  // namespace atom::cuda
