// byte_groups: y = dequant(x8 * w^T) where both come in bytes with a scale every 32 columns: output
// layers of quantized models (Q8_0 by Q8_0).
//   x    [T, x_stride] s8, f32 scales [T, K/32]     w  [N, K] s8, f16 scales [N, K/32]
//   y    [T, N] f32 or f16
// Work: a CTA takes 128 rows x 8 kTiles tokens, a warp 16 rows. Weights go from memory straight to
// registers, a chunk ahead; activations through shared memory, two chunks of it. A group is one
// product of the tensor cores; its columns are taken in an order in which a lane's weights are
// eight bytes side by side:
//
//   group     | c = 0: bytes 0..7 | c = 1: 8..15 | c = 2 | c = 3 |      of rows g and g + 8
//
// Products add to 1.5 * 2^23 as an integer, whose bits are then that float plus the sum: no
// conversion.   Rounds: one product of scales and one fma a group, as integer_linear.cu.
// Requires: K a multiple of 32.   Bound: HBM up to 8 tokens, the scaling's instructions above 32.
#include <cuda_fp16.h>

#include "backend/cuda/linear/linear_kernels.h"
#include "backend/cuda/ptx/mma.cuh"
#include "backend/cuda/ptx/sync.cuh"
#include "backend/cuda/runtime/elements.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kThreads = 256, kRows = 128, kGroup = 32;
constexpr int kBias = 0x4b400000;  // the bits of 1.5 * 2^23
constexpr float kBiasValue = 12582912.0f;

// Groups of a chunk: more where few tokens leave the registers for it.
template <int kTiles>
constexpr int kChunk = kTiles == 1 ? 8 : 4;

// A chunk of the activations in shared memory; rows of a pitch that spares bank conflicts.
template <int kTiles>
struct Chunk {
  static constexpr int kPitch = kChunk<kTiles> * kGroup + 32;
  alignas(16) int8_t codes[8 * kTiles][kPitch];
  alignas(16) float scales[kChunk<kTiles>][8 * kTiles];
};

// A chunk of a lane's weights: rows g and g + 8.
template <int kTiles>
struct Weights {
  static constexpr int kGroups = kChunk<kTiles>;
  uint2 codes[2][kGroups];
  struct alignas(2 * kGroups) Scales {
    __half values[kGroups];
  } scales[2];

  __device__ void load(const WeightView& w, int row, int first, int groups, int c) {
    const bool whole = groups % kGroups == 0;  // no chunk is cut short, nor begins askew
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t n = min(row + 8 * half, w.rows - 1);
      const uint8_t* from = w.codes + n * w.body + 8 * c;
      const auto* row_scales = reinterpret_cast<const __half*>(w.scales) + n * groups;
      if (whole) scales[half] = *reinterpret_cast<const Scales*>(row_scales + first);
#pragma unroll
      for (int i = 0; i < kGroups; ++i) {
        const int g = min(first + i, groups - 1);
        codes[half][i] = __ldg(reinterpret_cast<const uint2*>(from + g * kGroup));
        if (!whole) scales[half].values[i] = row_scales[g];
      }
    }
  }
};

template <int kTiles>
__global__ __launch_bounds__(kThreads, kTiles > 8 ? 1 : 2) void byte_groups_kernel(
    const __grid_constant__ IntegerLinearParams p) {
  constexpr int kTokens = 8 * kTiles, kGroups = kChunk<kTiles>;
  auto* chunks = reinterpret_cast<Chunk<kTiles>*>(dynamic_shared());
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int g = lane / 4, c = lane % 4;
  const int row = static_cast<int>(blockIdx.x) * kRows + warp * 16 + g;
  const int token0 = static_cast<int>(blockIdx.y) * kTokens;
  const int groups = p.w.body / kGroup, count = (groups + kGroups - 1) / kGroups;

  Weights<kTiles> weights;
  weights.load(p.w, row, 0, groups, c);
  // Tokens that are not there stay zero.
  for (int i = thread; i < static_cast<int>(2 * sizeof(Chunk<kTiles>) / 16); i += kThreads) {
    reinterpret_cast<uint4*>(chunks)[i] = uint4{};
  }
  __syncthreads();
  wait_for_previous();
  let_next_start();
  const auto bring = [&](int chunk) {
    if (chunk < count) {
      Chunk<kTiles>& to = chunks[chunk % 2];
      constexpr int kPieces = kGroups * kGroup / 16;  // of a token's codes
      for (int i = thread; i < kTokens * kPieces; i += kThreads) {
        const int token = i / kPieces, piece = i % kPieces,
                  column = chunk * kGroups * kGroup + piece * 16;
        if (token0 + token >= p.tokens || column >= p.w.body) continue;
        ptx::copy16(ptx::shared_address(to.codes[token] + piece * 16),
                    p.x + static_cast<int64_t>(token0 + token) * p.x_stride + column);
      }
      for (int i = thread; i < kTokens * kGroups; i += kThreads) {
        const int token = i / kGroups, group = chunk * kGroups + i % kGroups;
        if (token0 + token >= p.tokens || group >= groups) continue;
        ptx::copy4(ptx::shared_address(&to.scales[i % kGroups][token]),
                   p.x_scales + static_cast<int64_t>(token0 + token) * groups + group);
      }
    }
    ptx::copy16_commit();
  };

  float total[kTiles][4] = {};
  bring(0);
  for (int chunk = 0; chunk < count; ++chunk) {
    bring(chunk + 1);
    ptx::copy16_wait_for<1>();
    __syncthreads();
    const Weights<kTiles> now = weights;
    if (chunk + 1 < count) weights.load(p.w, row, (chunk + 1) * kGroups, groups, c);
    const Chunk<kTiles>& x = chunks[chunk % 2];
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
      if (chunk * kGroups + i >= groups) break;
      const uint32_t a[4] = {now.codes[0][i].x, now.codes[1][i].x, now.codes[0][i].y,
                             now.codes[1][i].y};
      const float low = __half2float(now.scales[0].values[i]),
                  high = __half2float(now.scales[1].values[i]);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const uint2 b = *reinterpret_cast<const uint2*>(x.codes[tile * 8 + g] + i * kGroup + 8 * c);
        int32_t sum[4];
        ptx::mma_s8_onto(sum, kBias, a, b.x, b.y);
        const float2 s = *reinterpret_cast<const float2*>(&x.scales[i][tile * 8 + 2 * c]);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float scale = (e < 2 ? low : high) * (e % 2 ? s.y : s.x);
          total[tile][e] = fmaf(__int_as_float(sum[e]) - kBiasValue, scale, total[tile][e]);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int n = row + (e < 2 ? 0 : 8), token = token0 + tile * 8 + 2 * c + e % 2;
      if (n >= p.w.rows || token >= p.tokens) continue;
      const float y = total[tile][e] + (p.w.bias != nullptr ? p.w.bias[n] : 0.0f);
      store_element(p.y, p.halves, static_cast<int64_t>(token) * p.w.rows + n, y, p.accumulate);
    }
  }
}

template <int kTiles>
void start(const IntegerLinearParams& p, cudaStream_t stream) {
  launch_chained(byte_groups_kernel<kTiles>,
                 dim3(blocks_for(p.w.rows, kRows), blocks_for(p.tokens, 8 * kTiles)), kThreads,
                 2 * static_cast<int64_t>(sizeof(Chunk<kTiles>)), p, stream);
}

}  // namespace

bool launch_byte_groups(const IntegerLinearParams& p, cudaStream_t stream) {
  const bool served = p.w.format.kind == WeightKind::kGrouped && p.w.format.bits == 8 &&
                      p.w.group == kGroup && p.x_groups == p.w.body / kGroup &&
                      p.w.format.outliers == 0 && p.w.body % kGroup == 0 && p.x_stride % 16 == 0;
  if (!served) return false;
  if (p.tokens <= 8) {
    start<1>(p, stream);
  } else if (p.tokens <= 32) {
    start<4>(p, stream);
  } else if (p.tokens <= 64) {
    start<8>(p, stream);
  } else {
    start<16>(p, stream);
  }
  return true;
}

}  // namespace atom::cuda
