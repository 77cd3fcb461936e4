// float_linear: y = x w^T in float, the weights decoded on the way: float formats, quantized
// weights with float activations, and float outlier columns. Work: many tokens: tiles of 64 x 64
// (tile_product.cuh); few: a warp a row of w, its columns strided over the lanes; few rows of
// floats as well: a CTA a token and two rows.   Rounds: fmaf, fixed order.   Bound: FP32 cores, or
// memory for few tokens; latency for few rows.
#include "backend/cuda/linear/linear_groups.cuh"
#include "backend/cuda/linear/linear_kernels.h"
#include "backend/cuda/linear/weight_access.cuh"
#include "backend/cuda/rows/tile_product.cuh"
#include "backend/cuda/runtime/elements.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kFewTokens = 8;
constexpr int kRowThreads = 128;
constexpr int kNarrowThreads = 256, kRowsAtOnce = 2;
constexpr int kEmbedThreads = 128;

__device__ void finish(const FloatLinearParams& p, int row, int token, float y) {
  if (row >= p.w.rows || token >= p.tokens) return;
  if (p.first == 0 && p.w.bias != nullptr) y += p.w.bias[row];
  store_element(p.y, p.halves, static_cast<int64_t>(token) * p.w.rows + row, y, p.accumulate);
}

__device__ void multiply_tile(const FloatLinearParams& p) {
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

__device__ void multiply_rows(const FloatLinearParams& p) {
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

__global__ __launch_bounds__(kTileThreads) void float_linear_tiles_kernel(
    const __grid_constant__ FloatLinearParams p) {
  multiply_tile(p);
}
__global__ __launch_bounds__(kRowThreads) void float_linear_rows_kernel(
    const __grid_constant__ FloatLinearParams p) {
  multiply_rows(p);
}

__global__ __launch_bounds__(kNarrowThreads) void float_linear_narrow_kernel(
    const __grid_constant__ FloatLinearParams p) {
  constexpr int kWarps = kNarrowThreads / 32;
  __shared__ float parts[kRowsAtOnce][kWarps];
  wait_for_previous();
  let_next_start();
  const int thread = static_cast<int>(threadIdx.x), token = static_cast<int>(blockIdx.y);
  const int row0 = static_cast<int>(blockIdx.x) * kRowsAtOnce;
  const float* x = static_cast<const float*>(p.x) + static_cast<int64_t>(token) * p.w.cols;
  const float* rows[kRowsAtOnce];
#pragma unroll
  for (int r = 0; r < kRowsAtOnce; ++r) {
    rows[r] = static_cast<const float*>(p.w.values) +
              static_cast<int64_t>(min(row0 + r, p.w.rows - 1)) * p.w.cols;
  }
  float sums[kRowsAtOnce] = {};
#pragma unroll 16
  for (int k = thread; k < p.w.cols; k += kNarrowThreads) {
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) sums[r] = fmaf(x[k], rows[r][k], sums[r]);
  }
#pragma unroll
  for (int r = 0; r < kRowsAtOnce; ++r) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      sums[r] += __shfl_xor_sync(0xffffffffu, sums[r], lanes);
    }
    if (thread % 32 == 0) parts[r][thread / 32] = sums[r];
  }
  __syncthreads();
  if (thread >= kRowsAtOnce) return;
  float sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += parts[thread][w];
  finish(p, row0 + thread, token, sum);
}

// What this CTA's linear of the group works on.
__device__ FloatLinearParams member(const Grouped<FloatLinearParams>& g) {
  const GroupRows rows(g.groups);
  FloatLinearParams p = g.params;
  p.w = g.groups.w[rows.group];
  p.x = element_address(p.x, p.x_halves, rows.first * (p.w.cols - p.first));
  p.y = element_address(p.y, p.halves, rows.first * p.w.rows);
  p.tokens = rows.count;
  return p;
}
__global__ __launch_bounds__(kTileThreads) void grouped_float_linear_tiles_kernel(
    const __grid_constant__ Grouped<FloatLinearParams> g) {
  const FloatLinearParams p = member(g);
  if (static_cast<int>(blockIdx.y) * kTile < p.tokens) multiply_tile(p);
}
__global__ __launch_bounds__(kRowThreads) void grouped_float_linear_rows_kernel(
    const __grid_constant__ Grouped<FloatLinearParams> g) {
  const FloatLinearParams p = member(g);
  if (p.tokens > 0) multiply_rows(p);
}

__global__ __launch_bounds__(kEmbedThreads) void expand_weights_kernel(
    const __grid_constant__ ExpandParams p) {
  const int64_t row = blockIdx.x;
  const int k = static_cast<int>(blockIdx.y * kEmbedThreads + threadIdx.x);
  if (k >= p.w.cols) return;
  p.to[row * p.w.cols + k] = weight_value(p.w, static_cast<int>(p.first_row + row), k);
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
  if (is_narrow(params.w, params.tokens)) {
    launch_chained(
        float_linear_narrow_kernel,
        dim3(blocks_for(params.w.rows, kRowsAtOnce), static_cast<unsigned>(params.tokens)),
        kNarrowThreads, 0, params, stream);
  } else if (params.tokens <= kFewTokens) {
    launch(float_linear_rows_kernel, dim3(blocks_for(params.w.rows, kRowThreads / 32)), kRowThreads,
           0, params, stream);
  } else {
    launch(float_linear_tiles_kernel,
           dim3(blocks_for(params.w.rows, kTile), blocks_for(params.tokens, kTile)), kTileThreads,
           0, params, stream);
  }
}

void launch_grouped_float_linear(const FloatLinearParams& params, const LinearGroups& groups,
                                 cudaStream_t stream) {
  if (params.tokens == 0) return;
  const Grouped<FloatLinearParams> grouped = {params, groups};
  const auto count = static_cast<unsigned>(groups.count);
  if (params.tokens <= kFewTokens) {
    launch(grouped_float_linear_rows_kernel,
           dim3(blocks_for(params.w.rows, kRowThreads / 32), 1, count), kRowThreads, 0, grouped,
           stream);
  } else {
    launch(grouped_float_linear_tiles_kernel,
           dim3(blocks_for(params.w.rows, kTile), blocks_for(params.tokens, kTile), count),
           kTileThreads, 0, grouped, stream);
  }
}

void launch_expand_weights(const ExpandParams& params, cudaStream_t stream) {
  launch(expand_weights_kernel,
         dim3(static_cast<unsigned>(params.rows), blocks_for(params.w.cols, kEmbedThreads)),
         kEmbedThreads, 0, params, stream);
}

void launch_embed(const EmbedParams& params, cudaStream_t stream) {
  if (params.tokens == 0) return;
  launch_chained(
      embed_kernel,
      dim3(static_cast<unsigned>(params.tokens), blocks_for(params.w.cols, kEmbedThreads)),
      kEmbedThreads, 0, params, stream);
}

}  // namespace atom::cuda
