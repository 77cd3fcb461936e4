// byte_groups: y = dequant(x8 * w^T) where both come in bytes with a scale every 32 columns: output
// layers of quantized models (Q8_0 by Q8_0).
//   x    [T, x_stride] s8, f32 scales [T, K/32]     w  [N, K] s8, f16 scales [N, K/32]
//   y    [T, N] f32 or f16
// Work: a CTA takes 128 rows x 8 to 96 tokens, each of its eight warps 16 or 32 rows x 8 kTiles
// tokens. Stages of four groups come by cp.async, all but one of them on their way:
//
//   codes   128 bytes of a row or token, the 16 bytes of piece p at p ^ (row % 8): what ldmatrix
//           reads together lies in different banks
//   scales  of rows as they are; of tokens so that what a lane takes for a tile and two groups is
//           16 bytes:  [pair of groups][tile][lane % 4][group of the pair][token of the lane's two]
//
// A group is one product of the tensor cores, which adds to 1.5 * 2^23 as an integer: the bits of
// that float plus the sum, without a conversion.   Rounds: one product of scales and one fma a
// group, in the order of the groups, as integer_linear.cu. Requires: K a multiple of 64.   Bound:
// HBM up to 32 tokens; above, the scaling's three instructions a sum as well.
#include <cuda_fp16.h>

#include "backend/cuda/linear/linear_kernels.h"
#include "backend/cuda/ptx/mma.cuh"
#include "backend/cuda/ptx/sync.cuh"
#include "backend/cuda/runtime/elements.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kRows = 128, kGroup = 32;
constexpr int kGroups = 4, kColumns = kGroups * kGroup, kPieces = kColumns / 16;  // of a stage
constexpr int kBias = 0x4b400000;  // the bits of 1.5 * 2^23
constexpr float kBiasValue = 12582912.0f;

template <int kTokens>
struct Stage {
  alignas(128) uint8_t rows[kRows][kColumns];
  alignas(128) uint8_t tokens[kTokens][kColumns];
  alignas(16) __half row_scales[kRows][kGroups];
  alignas(16) float token_scales[kGroups / 2][kTokens / 8][4][4];
};

// A warp's tile: 16 kRowTiles rows x 8 kTiles tokens; kTokenWarps of them side by side.
template <int kRows16, int kTiles8>
struct Tile {
  static constexpr int kRowTiles = kRows16, kTiles = kTiles8;
  static constexpr int kRowWarps = kRows / (16 * kRowTiles), kTokenWarps = kWarps / kRowWarps;
  static constexpr int kTokens = 8 * kTiles * kTokenWarps;
  static constexpr int kStages = kTokens > 32 ? 3 : 5;  // two CTAs a multiprocessor
  using Buffer = Stage<kTokens>;
};

// Adds a group's sums of rows g and g + 8 by tokens 2c and 2c + 1.
__device__ inline void add_group(float (&total)[4], const uint32_t (&a)[4], uint32_t b0,
                                 uint32_t b1, float2 row_scales, float2 token_scales) {
  int32_t sum[4];
  ptx::mma_s8_onto(sum, kBias, a, b0, b1);
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const float scale =
        (e < 2 ? row_scales.x : row_scales.y) * (e % 2 ? token_scales.y : token_scales.x);
    total[e] = fmaf(__int_as_float(sum[e]) - kBiasValue, scale, total[e]);
  }
}

template <class T>
__global__ __launch_bounds__(kThreads, 2) void byte_groups_kernel(
    const __grid_constant__ IntegerLinearParams p) {
  using Buffer = typename T::Buffer;
  constexpr int kTokens = T::kTokens, kStages = T::kStages, kRowTiles = T::kRowTiles;
  auto* stages = reinterpret_cast<Buffer*>(dynamic_shared());
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  // Tiles of tokens that read the same weights run at the same time.
  const int row0 = static_cast<int>(blockIdx.y) * kRows;
  const int token0 = static_cast<int>(blockIdx.x) * kTokens;
  const int groups = p.w.body / kGroup, count = (groups + kGroups - 1) / kGroups;

  // What each thread copies of a stage: a piece of every kLines'th row and token, two scales of a
  // row, a scale of every kScaleLines'th token. Of rows and tokens that are not there, nothing: the
  // sums that memory's contents make of them go nowhere.
  constexpr int kLines = kThreads / kPieces, kScaleLines = kThreads / kGroups;
  static_assert(kThreads == kRows * kGroups / 2);
  const int line = thread / kPieces, piece = thread % kPieces;
  const uint32_t to_codes = static_cast<uint32_t>(line * kColumns + (piece ^ line % 8) * 16);
  const uint8_t* row_from = p.w.codes + int64_t{row0 + line} * p.w.body + piece * 16;
  const int8_t* token_from = p.x + (token0 + line) * p.x_stride + piece * 16;
  const int two = thread % 2 * 2;
  const __half* row_scale_from =
      reinterpret_cast<const __half*>(p.w.scales) + int64_t{row0 + thread / 2} * groups + two;
  const int scale_line = thread / kGroups, group = thread % kGroups;
  const float* token_scale_from = p.x_scales + int64_t{token0 + scale_line} * groups + group;
  const auto bring_rows = [&](int stage) {
    Buffer& to = stages[stage % kStages];
    const uint32_t codes = ptx::shared_address(to.rows) + to_codes;
    if (stage * kColumns + piece * 16 < p.w.body) {
#pragma unroll
      for (int i = 0; i < kRows / kLines; ++i) {
        if (row0 + line + i * kLines < p.w.rows) {
          ptx::copy16(codes + static_cast<uint32_t>(i * kLines * kColumns),
                      row_from + int64_t{i * kLines} * p.w.body + stage * kColumns);
        }
      }
    }
    if (row0 + thread / 2 < p.w.rows && stage * kGroups + two < groups) {
      ptx::copy4(ptx::shared_address(&to.row_scales[thread / 2][two]),
                 row_scale_from + stage * kGroups);
    }
  };
  const auto bring_tokens = [&](int stage) {
    Buffer& to = stages[stage % kStages];
    const uint32_t codes = ptx::shared_address(to.tokens) + to_codes;
    const int here = min(kTokens, p.tokens - token0);
    if (stage * kColumns + piece * 16 < p.w.body) {
#pragma unroll
      for (int i = 0; i < (kTokens + kLines - 1) / kLines; ++i) {
        if (line + i * kLines < here) {
          ptx::copy16(codes + static_cast<uint32_t>(i * kLines * kColumns),
                      token_from + i * kLines * p.x_stride + stage * kColumns);
        }
      }
    }
    if (stage * kGroups + group < groups) {
      // A line kScaleLines further is as many tiles further.
      const uint32_t scales =
          ptx::shared_address(&to.token_scales[group / 2][scale_line / 8][scale_line % 8 / 2]
                                              [group % 2 * 2 + scale_line % 2]);
#pragma unroll
      for (int i = 0; i < (kTokens + kScaleLines - 1) / kScaleLines; ++i) {
        if (scale_line + i * kScaleLines < here) {
          ptx::copy4(
              scales + static_cast<uint32_t>(i * kScaleLines / 8 * sizeof(to.token_scales[0][0])),
              token_scale_from + int64_t{i * kScaleLines} * groups + stage * kGroups);
        }
      }
    }
  };

  for (int stage = 0; stage < kStages - 1; ++stage) bring_rows(stage);
  wait_for_previous();
  let_next_start();
  for (int stage = 0; stage < kStages - 1; ++stage) {
    bring_tokens(stage);
    ptx::copy16_commit();
  }

  const int warp_row = warp % T::kRowWarps * 16 * kRowTiles;
  const int warp_tile = warp / T::kRowWarps * T::kTiles;
  // Where this lane's rows of ldmatrix are, of group 0 or groups 0 and 1; others by exclusive or.
  const auto a_place =
      static_cast<uint32_t>((warp_row + lane % 16) * kColumns + (lane / 16 ^ lane % 8) * 16);
  const auto b_place =
      static_cast<uint32_t>((warp_tile * 8 + lane % 8) * kColumns + (lane / 8 ^ lane % 8) * 16);
  const int g = lane / 4, c = lane % 4;
  float total[kRowTiles][T::kTiles][4] = {};
  for (int stage = 0; stage < count; ++stage) {
    ptx::copy16_wait_for<kStages - 2>();
    __syncthreads();
    bring_rows(stage + kStages - 1);
    bring_tokens(stage + kStages - 1);
    ptx::copy16_commit();
    const Buffer& now = stages[stage % kStages];
    const uint32_t rows = ptx::shared_address(now.rows) + a_place;
    const uint32_t tokens = ptx::shared_address(now.tokens) + b_place;
#pragma unroll
    for (int pair = 0; pair < kGroups / 2; ++pair) {
      if (stage * kGroups + 2 * pair >= groups) break;
      uint32_t a[2][kRowTiles][4];  // of either group
      float2 scales[kRowTiles][2];  // of rows g and g + 8, both groups'
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          ptx::load_matrix((rows ^ static_cast<uint32_t>((2 * pair + i) * kGroup)) +
                               static_cast<uint32_t>(m * 16 * kColumns),
                           a[i][m]);
          scales[m][i] = __half22float2(*reinterpret_cast<const __half2*>(
              &now.row_scales[warp_row + 16 * m + 8 * i + g][2 * pair]));
        }
      }
#pragma unroll
      for (int tile = 0; tile < T::kTiles; ++tile) {
        uint32_t b[4];  // two of each group
        ptx::load_matrix((tokens ^ static_cast<uint32_t>(pair * 2 * kGroup)) +
                             static_cast<uint32_t>(tile * 8 * kColumns),
                         b);
        const float4 s =
            *reinterpret_cast<const float4*>(now.token_scales[pair][warp_tile + tile][c]);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          const float2 &low = scales[m][0], &high = scales[m][1];
          add_group(total[m][tile], a[0][m], b[0], b[1], make_float2(low.x, high.x),
                    make_float2(s.x, s.y));
          add_group(total[m][tile], a[1][m], b[2], b[3], make_float2(low.y, high.y),
                    make_float2(s.z, s.w));
        }
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int tile = 0; tile < T::kTiles; ++tile) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int n = row0 + warp_row + 16 * m + g + (e < 2 ? 0 : 8);
        const int token = token0 + (warp_tile + tile) * 8 + 2 * c + e % 2;
        if (n >= p.w.rows || token >= p.tokens) continue;
        const float y = total[m][tile][e] + (p.w.bias != nullptr ? p.w.bias[n] : 0.0f);
        store_element(p.y, p.halves, static_cast<int64_t>(token) * p.w.rows + n, y, p.accumulate);
      }
    }
  }
}

template <class T>
void start(const IntegerLinearParams& p, cudaStream_t stream) {
  launch_chained(byte_groups_kernel<T>,
                 dim3(blocks_for(p.tokens, T::kTokens), blocks_for(p.w.rows, kRows)), kThreads,
                 T::kStages * static_cast<int64_t>(sizeof(typename T::Buffer)), p, stream);
}

}  // namespace

bool launch_byte_groups(const IntegerLinearParams& p, cudaStream_t stream) {
  const bool served = p.w.format.kind == WeightKind::kGrouped && p.w.format.bits == 8 &&
                      p.w.group == kGroup && p.x_groups == p.w.body / kGroup &&
                      p.w.format.outliers == 0 && p.w.body % (2 * kGroup) == 0 &&
                      p.x_stride % 16 == 0;
  if (!served) return false;
  // Shares of the tokens as equal as tiles allow: 128 tokens at once would not fit into registers.
  const int shares = (p.tokens + 95) / 96, tokens = (p.tokens + shares - 1) / shares;
  if (tokens <= 8) {
    start<Tile<1, 1>>(p, stream);
  } else if (tokens <= 16) {
    start<Tile<1, 2>>(p, stream);
  } else if (tokens <= 32) {
    start<Tile<1, 4>>(p, stream);
  } else if (tokens <= 48) {
    start<Tile<2, 3>>(p, stream);
  } else if (tokens <= 64) {
    start<Tile<2, 4>>(p, stream);
  } else if (tokens <= 80) {
    start<Tile<2, 5>>(p, stream);
  } else {
    start<Tile<2, 6>>(p, stream);
  }
  return true;
}

}  // namespace atom::cuda
