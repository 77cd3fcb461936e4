// Rows copied by index, and Gram matrices.
#include "backend/cuda/rows/row_kernels.h"
#include "backend/cuda/rows/tile_product.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kThreads = 256;

__global__ __launch_bounds__(kThreads) void gather_rows_kernel(
    const __grid_constant__ GatherParams p) {
  wait_for_previous();
  let_next_start();
  const int64_t i = blockIdx.x, row = p.rows[i];
  const int64_t k = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (row < 0 || k >= p.cols) return;
  p.y[i * p.cols + k] = p.x[row * p.cols + k];
}

// A CTA takes a tile of the lower triangle and writes it twice. The product of two channels is the
// same number in either order, so that the result is symmetric to the last bit.
__global__ __launch_bounds__(kTileThreads) void gram_kernel(const __grid_constant__ GramParams p) {
  const int64_t row0 = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t col0 = static_cast<int64_t>(blockIdx.y) * kTile;
  if (col0 > row0) return;
  const auto element = [&](int64_t first) {
    return [&p, first](int channel, int64_t token) {
      const int64_t k = first + channel;
      return k < p.channels ? p.x[token * p.channels + k] : 0.0f;
    };
  };
  float sums[4][4] = {};
  tile_product<Along::kRows>(sums, p.tokens, element(row0), element(col0));
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t row = row0 + thread / 16 * 4 + i, col = col0 + thread % 16 * 4 + j;
      if (row >= p.channels || col >= p.channels) continue;
      p.h[row * p.channels + col] += sums[i][j];
      if (row0 != col0) p.h[col * p.channels + row] += sums[i][j];
    }
  }
}

}  // namespace

void launch_gather_rows(const GatherParams& params, cudaStream_t stream) {
  if (params.count == 0) return;
  launch_chained(gather_rows_kernel,
                 dim3(static_cast<unsigned>(params.count), blocks_for(params.cols, kThreads)),
                 kThreads, 0, params, stream);
}

void launch_gram(const GramParams& params, cudaStream_t stream) {
  if (params.tokens == 0) return;
  const unsigned tiles = blocks_for(params.channels, kTile);
  launch(gram_kernel, dim3(tiles, tiles), kTileThreads, 0, params, stream);
}

}  // namespace atom::cuda
