// nibble_linear: y = x w^T, 4-bit weights in groups, float activations, few tokens (w4a16).
//   x [T, K] f32   w [N, K/2] signed nibbles, low one first, f16 scales [N, K/G]   y [T, N] f32,
//   f16
// Work: a warp kRows rows and up to eight tokens; a lane eight columns of every 256:
//
//   HBM --32 bits a lane and row, four steps ahead--> nibbles in place --or, add--> floats
//   x through L1, each value for all of the rows
//
// An or with an exponent makes a nibble, where it stands in the word, the mantissa of a float that
// is 2^e + code + 8: no shift, no conversion. A group's sum meets its scale once in eight columns.
// Rounds: fmaf, fixed order, whatever the number of tokens. Bound: HBM for up to two tokens, then
// issue slots.
#include <cuda_fp16.h>

#include "backend/cuda/linear/linear_kernels.h"
#include "backend/cuda/runtime/elements.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRows = 4;          // of a warp
constexpr int kRun = 8;           // columns of a lane, the nibbles of a word
constexpr int kStep = 32 * kRun;  // columns of a warp
constexpr int kAhead = 4;         // steps whose words are on their way at once
constexpr int kMostTokens = 32;

// The codes of a word, whose sign bits were flipped.
__device__ inline void expand(uint32_t word, float (&codes)[kRun]) {
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    const int place = i % 4;  // of four in the lower half
    const uint32_t half = i < 4 ? word : word >> 16;
    // Mantissa bit 0 is worth 2^-(4 place).
    const int exponent = 23 - 4 * place;
    const uint32_t bits = (half & (0xfu << (4 * place))) | static_cast<uint32_t>(127 + exponent)
                                                               << 23;
    codes[i] = __uint_as_float(bits) - (static_cast<float>(1 << exponent) + 8.0f);
  }
}

template <int kTokens>
__global__ __launch_bounds__(kThreads) void nibble_linear_kernel(
    const __grid_constant__ FloatLinearParams p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row0 =
      (static_cast<int>(blockIdx.x) * (kThreads / 32) + static_cast<int>(threadIdx.x) / 32) * kRows;
  const int token0 = static_cast<int>(blockIdx.y) * kTokens;
  if (row0 >= p.w.rows) return;
  const int cols = p.w.cols, groups = cols / p.w.group;
  const auto* x = static_cast<const float*>(p.x) + static_cast<int64_t>(token0) * cols;
  float sums[kRows][kTokens] = {};
  for (int k0 = 0; k0 < cols; k0 += kAhead * kStep) {
    uint32_t words[kAhead][kRows];
    float scales[kAhead][kRows];
#pragma unroll
    for (int s = 0; s < kAhead; ++s) {
      const int k = k0 + s * kStep + lane * kRun;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        // Rows behind the last one are read as that one, and not written.
        const int64_t n = min(row0 + r, p.w.rows - 1);
        const bool real = k < cols;
        words[s][r] =
            real ? __ldcs(reinterpret_cast<const uint32_t*>(p.w.codes + (n * cols + k) / 2)) : 0;
        scales[s][r] =
            real ? __half2float(__ushort_as_half(p.w.scales[n * groups + k / p.w.group])) : 0.0f;
      }
    }
    if (k0 == 0) {
      wait_for_previous();
      let_next_start();
    }
#pragma unroll
    for (int s = 0; s < kAhead; ++s) {
      const int k = k0 + s * kStep + lane * kRun;
      if (k >= cols) break;
      float v[kTokens][kRun];
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        const bool real = token0 + t < p.tokens;
        const auto* from = reinterpret_cast<const float4*>(x + static_cast<int64_t>(t) * cols + k);
#pragma unroll
        for (int i = 0; i < kRun / 4; ++i) {
          const float4 four = real ? from[i] : float4{};
          v[t][4 * i] = four.x;
          v[t][4 * i + 1] = four.y;
          v[t][4 * i + 2] = four.z;
          v[t][4 * i + 3] = four.w;
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float codes[kRun];
        expand(words[s][r] ^ 0x88888888u, codes);
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
          float sum = codes[0] * v[t][0];
#pragma unroll
          for (int i = 1; i < kRun; ++i) sum = fmaf(codes[i], v[t][i], sum);
          sums[r][t] = fmaf(sum, scales[s][r], sums[r][t]);
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      float y = sums[r][t];
#pragma unroll
      for (int lanes = 16; lanes > 0; lanes /= 2) y += __shfl_xor_sync(0xffffffffu, y, lanes);
      const int n = row0 + r, token = token0 + t;
      if (lane != 0 || n >= p.w.rows || token >= p.tokens) continue;
      if (p.w.bias != nullptr) y += p.w.bias[n];
      store_element(p.y, p.halves, static_cast<int64_t>(token) * p.w.rows + n, y, p.accumulate);
    }
  }
}

template <int kTokens>
void start(const FloatLinearParams& p, cudaStream_t stream) {
  launch_chained(nibble_linear_kernel<kTokens>,
                 dim3(blocks_for(p.w.rows, kThreads / 32 * kRows), blocks_for(p.tokens, kTokens)),
                 kThreads, 0, p, stream);
}

}  // namespace

bool launch_nibble_linear(const FloatLinearParams& p, cudaStream_t stream) {
  const WeightFormat& format = p.w.format;
  const bool served = format.kind == WeightKind::kGrouped && format.bits <= 4 &&
                      format.outlier_kind == OutlierKind::kNone &&
                      p.w.layout == LinearLayout::kRows && p.first == 0 && !p.x_halves &&
                      p.w.group % kRun == 0 && p.w.cols % kRun == 0 && p.tokens <= kMostTokens;
  if (!served) return false;
  if (p.tokens == 1) {
    start<1>(p, stream);
  } else if (p.tokens == 2) {
    start<2>(p, stream);
  } else if (p.tokens <= 4) {
    start<4>(p, stream);
  } else {
    start<8>(p, stream);
  }
  return true;
}

}  // namespace atom::cuda
