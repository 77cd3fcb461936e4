// float_linear: y = x w^T in float, the weights decoded on the way: float formats, quantized
// weights with float activations, and float outlier columns. Work: many tokens: tiles of 64 x 64
// (tile_product.cuh); few: a warp a row of w, its columns strided over the lanes.   Rounds: fmaf,
// fixed order.   Bound: FP32 cores, or memory for few tokens.
#include "backend/cuda/linear/linear_kernels.h"
#include "backend/cuda/linear/weight_access.cuh"
#include "backend/cuda/rows/tile_product.cuh"
#include "backend/cuda/runtime/elements.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kFewTokens = 8;
constexpr int kRowThreads = 128;
constexpr int kEmbedThreads = 128;

__device__ void finish(const FloatLinearParams& p, int row, int token, float y) {
  if (row >= p.w.rows || token >= p.tokens) return;
  if (p.first == 0 && p.w.bias != nullptr) y += p.w.bias[row];
  store_element(p.y, p.halves, static_cast<int64_t>(token) * p.w.rows + row, y, p.accumulate);
}

__global__ __launch_bounds__(kTileThreads) void float_linear_tiles_kernel(
    const __grid_constant__ FloatLinearParams p) {
  const int token0 = static_cast<int>(blockIdx.y) * kTile;
  const int row0 = static_cast<int>(blockIdx.x) * kTile;
  const int depth = p.w.cols - p.first;
  float sums[4][4] = {};
  tile_product(
      sums, depth,
      [&](int token, int64_t k) {
        const int t = token0 + token;
        return t < p.tokens ? element(p.x, p.x_halves, static_cast<int64_t>(t) * depth + k) : 0.0f;
      },
      [&](int row, int64_t k) {
        const int n = row0 + row;
        return n < p.w.rows ? weight_value(p.w, n, p.first + static_cast<int>(k)) : 0.0f;
      });
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      finish(p, row0 + thread % 16 * 4 + j, token0 + thread / 16 * 4 + i, sums[i][j]);
    }
  }
}

__global__ __launch_bounds__(kRowThreads) void float_linear_rows_kernel(
    const __grid_constant__ FloatLinearParams p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row =
      static_cast<int>(blockIdx.x) * (kRowThreads / 32) + static_cast<int>(threadIdx.x) / 32;
  if (row >= p.w.rows) return;
  const int depth = p.w.cols - p.first;
  float sums[kFewTokens] = {};
  for (int k = lane; k < depth; k += 32) {
    const float weight = weight_value(p.w, row, p.first + k);
#pragma unroll
    for (int t = 0; t < kFewTokens; ++t) {
      if (t >= p.tokens) continue;
      const float x = element(p.x, p.x_halves, static_cast<int64_t>(t) * depth + k);
      sums[t] = fmaf(x, weight, sums[t]);
    }
  }
#pragma unroll
  for (int t = 0; t < kFewTokens; ++t) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      sums[t] += __shfl_xor_sync(0xffffffffu, sums[t], lanes);
    }
    if (lane == 0) finish(p, row, t, sums[t]);
  }
}

__global__ __launch_bounds__(kEmbedThreads) void embed_kernel(
    const __grid_constant__ EmbedParams p) {
  wait_for_previous();
  let_next_start();
  const int64_t token = blockIdx.x;
  int id = p.ids[token];
  if (id < 0 && p.earlier != nullptr) id = p.earlier[-1 - id];
  const int k = static_cast<int>(blockIdx.y * kEmbedThreads + threadIdx.x);
  if (id < 0 || id >= p.w.rows || k >= p.w.cols) return;
  p.y[token * p.w.cols + k] = weight_value(p.w, id, k);
}

}  // namespace

void launch_float_linear(const FloatLinearParams& params, cudaStream_t stream) {
  if (params.tokens == 0 || launch_nibble_linear(params, stream)) return;
  if (params.tokens <= kFewTokens) {
    launch(float_linear_rows_kernel, dim3(blocks_for(params.w.rows, kRowThreads / 32)), kRowThreads,
           0, params, stream);
  } else {
    launch(float_linear_tiles_kernel,
           dim3(blocks_for(params.w.rows, kTile), blocks_for(params.tokens, kTile)), kTileThreads,
           0, params, stream);
  }
}

void launch_embed(const EmbedParams& params, cudaStream_t stream) {
  if (params.tokens == 0) return;
  launch_chained(
      embed_kernel,
      dim3(static_cast<unsigned>(params.tokens), blocks_for(params.w.cols, kEmbedThreads)),
      kEmbedThreads, 0, params, stream);
}

}  // namespace atom::cuda
