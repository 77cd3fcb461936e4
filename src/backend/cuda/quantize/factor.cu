// factor: Cholesky and triangular inverse of a large matrix in double, factor_kernels.h.
// Work: CTAs of 256 threads take tiles of 64 x 64 outputs, 4 x 4 a thread, both operands of a rank
// 64 update in 66 KB of shared memory; the diagonal block is one CTA's.   Rounds: double, fixed
// order.   Bound: FP64 cores (n^3 / 3 multiply-adds each half).
#include "backend/cuda/quantize/factor_kernels.h"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kBlock = kFactorBlock;
constexpr int kThreads = 256;
constexpr int kStride = kBlock + 2;  // doubles of a row in shared memory
constexpr int64_t kTileBytes = int64_t{2} * kBlock * kStride * 8;

__device__ double* left_tile() { return reinterpret_cast<double*>(dynamic_shared()); }
__device__ double* right_tile() { return left_tile() + kBlock * kStride; }

// Fills a tile of shared memory, tile[k][i] = at(i, k), neighbouring threads along k.
template <class At>
__device__ void fill_along(double* tile, const At& at) {
  for (int e = static_cast<int>(threadIdx.x); e < kBlock * kBlock; e += kThreads) {
    tile[e % kBlock * kStride + e / kBlock] = at(e / kBlock, e % kBlock);
  }
}
// The same with neighbouring threads along i.
template <class At>
__device__ void fill_across(double* tile, const At& at) {
  for (int e = static_cast<int>(threadIdx.x); e < kBlock * kBlock; e += kThreads) {
    tile[e / kBlock * kStride + e % kBlock] = at(e % kBlock, e / kBlock);
  }
}

// store(i, j, sum over k of left[k][i] * right[k][j]); both tiles are whole.
template <class Store>
__device__ void tile_times(const Store& store) {
  const double* left = left_tile();
  const double* right = right_tile();
  const int ty = static_cast<int>(threadIdx.x) / 16, tx = static_cast<int>(threadIdx.x) % 16;
  double sums[4][4] = {};
#pragma unroll 4
  for (int k = 0; k < kBlock; ++k) {
    double a[4], b[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      a[i] = left[k * kStride + 4 * ty + i];
      b[i] = right[k * kStride + 4 * tx + i];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[i][j] = fma(a[i], b[j], sums[i][j]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) store(4 * ty + i, 4 * tx + j, sums[i][j]);
  }
}

__global__ __launch_bounds__(kThreads) void reverse_kernel(
    const __grid_constant__ ReverseParams p) {
  const int64_t n = p.n;
  const int64_t row = blockIdx.y;  // of the reversed matrix
  const int64_t col = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (col > row) return;
  const int64_t i = n - 1 - row, j = n - 1 - col;
  const int64_t a = p.order == nullptr ? i : p.order[i], b = p.order == nullptr ? j : p.order[j];
  float h = a >= b ? p.gram[a * n + b] : p.gram[b * n + a];
  if (p.divisors != nullptr) h /= p.divisors[a] * p.divisors[b];
  double value = h;
  if (row == col) {
    value = (h == 0.0f ? 1.0 : value) + p.damp;
    p.diagonal[i] = static_cast<float>(value);
  }
  p.matrix[row * n + col] = value;
}

// L_jj and its inverse. Rows and columns past the matrix are the identity's.
__global__ __launch_bounds__(kThreads) void diagonal_block_kernel(
    const __grid_constant__ FactorParams p) {
  double* l = left_tile();         // [kBlock][kStride]
  double* inverse = right_tile();  // likewise
  __shared__ double pivot;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t first = int64_t{p.block} * kBlock;
  const int size = static_cast<int>(min(int64_t{kBlock}, static_cast<int64_t>(p.n) - first));
  double* corner = p.matrix + first * p.n + first;
  for (int e = thread; e < kBlock * kBlock; e += kThreads) {
    const int i = e / kBlock, j = e % kBlock;
    l[i * kStride + j] = i < size && j <= i ? corner[int64_t{i} * p.n + j] : (i == j ? 1.0 : 0.0);
    inverse[i * kStride + j] = i == j ? 1.0 : 0.0;
  }
  __syncthreads();
  for (int k = 0; k < kBlock; ++k) {
    if (thread == 0) {
      const double square = l[k * kStride + k];
      const bool good = square > 0.0;  // false for NaN
      if (!good && *p.failed == 0) *p.failed = static_cast<int>(first) + k + 1;
      pivot = good ? sqrt(square) : 1.0;
      l[k * kStride + k] = pivot;
    }
    __syncthreads();
    for (int i = k + 1 + thread; i < kBlock; i += kThreads) l[i * kStride + k] /= pivot;
    __syncthreads();
    for (int e = thread; e < kBlock * kBlock; e += kThreads) {
      const int i = e / kBlock, j = e % kBlock;
      if (j > k && j <= i) l[i * kStride + j] -= l[i * kStride + k] * l[j * kStride + k];
    }
    __syncthreads();
  }
  // L X = I, row after row of X.
  for (int k = 0; k < kBlock; ++k) {
    for (int j = thread; j <= k; j += kThreads) inverse[k * kStride + j] /= l[k * kStride + k];
    __syncthreads();
    for (int e = thread; e < kBlock * kBlock; e += kThreads) {
      const int i = e / kBlock, j = e % kBlock;
      if (i > k && j <= k) {
        inverse[i * kStride + j] -= l[i * kStride + k] * inverse[k * kStride + j];
      }
    }
    __syncthreads();
  }
  double* to = p.inverses + int64_t{p.block} * kBlock * kBlock;
  for (int e = thread; e < kBlock * kBlock; e += kThreads) {
    const int i = e / kBlock, j = e % kBlock;
    if (i < size && j <= i) corner[int64_t{i} * p.n + j] = l[i * kStride + j];
    to[e] = inverse[i * kStride + j];
  }
}

// A_r,j := A_r,j L_jj^-T for the tile of rows r = block + 1 + blockIdx.x.
__global__ __launch_bounds__(kThreads) void panel_kernel(const __grid_constant__ FactorParams p) {
  const int64_t n = p.n, col0 = int64_t{p.block} * kBlock;
  const int64_t row0 = col0 + (static_cast<int64_t>(blockIdx.x) + 1) * kBlock;
  double* tile = p.matrix + row0 * n + col0;
  const double* inverse = p.inverses + int64_t{p.block} * kBlock * kBlock;
  fill_along(left_tile(), [&](int i, int k) { return row0 + i < n ? tile[i * n + k] : 0.0; });
  fill_along(right_tile(), [&](int i, int k) { return inverse[i * kBlock + k]; });
  __syncthreads();
  tile_times([&](int i, int j, double sum) {
    if (row0 + i < n) tile[i * n + j] = sum;
  });
}

// A_r,c -= A_r,j A_c,j^T for the tile r = block + 1 + blockIdx.y, c = block + 1 + blockIdx.x.
__global__ __launch_bounds__(kThreads) void trailing_kernel(
    const __grid_constant__ FactorParams p) {
  if (blockIdx.x > blockIdx.y) return;
  const int64_t n = p.n, from = int64_t{p.block} * kBlock;
  const int64_t row0 = from + (static_cast<int64_t>(blockIdx.y) + 1) * kBlock;
  const int64_t col0 = from + (static_cast<int64_t>(blockIdx.x) + 1) * kBlock;
  const auto rows_from = [&](int64_t first) {
    return [&p, n, from, first](int i, int k) {
      return first + i < n ? p.matrix[(first + i) * n + from + k] : 0.0;
    };
  };
  fill_along(left_tile(), rows_from(row0));
  fill_along(right_tile(), rows_from(col0));
  __syncthreads();
  tile_times([&](int i, int j, double sum) {
    if (row0 + i < n && col0 + j <= row0 + i) p.matrix[(row0 + i) * n + col0 + j] -= sum;
  });
}

// X_i,c = L_ii^-1 A_i,c for c = blockIdx.x < i = block, and X_ii = L_ii^-1.
__global__ __launch_bounds__(kThreads) void inverse_row_kernel(
    const __grid_constant__ FactorParams p) {
  const int64_t n = p.n, row0 = int64_t{p.block} * kBlock, col0 = int64_t{blockIdx.x} * kBlock;
  const double* inverse = p.inverses + int64_t{p.block} * kBlock * kBlock;
  double* tile = p.matrix + row0 * n + col0;
  if (static_cast<int>(blockIdx.x) == p.block) {
    for (int e = static_cast<int>(threadIdx.x); e < kBlock * kBlock; e += kThreads) {
      const int i = e / kBlock, j = e % kBlock;
      if (row0 + i < n && j <= i) tile[i * n + j] = inverse[e];
    }
    return;
  }
  fill_along(left_tile(), [&](int i, int k) { return inverse[i * kBlock + k]; });
  fill_across(right_tile(), [&](int j, int k) { return row0 + k < n ? tile[k * n + j] : 0.0; });
  __syncthreads();
  tile_times([&](int i, int j, double sum) {
    if (row0 + i < n) tile[i * n + j] = sum;
  });
}

// panel := L_r,i of all rows r below block i.
__global__ __launch_bounds__(kThreads) void keep_panel_kernel(
    const __grid_constant__ FactorParams p) {
  const int64_t n = p.n, from = int64_t{p.block} * kBlock;
  const int64_t e = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = from + kBlock + e / kBlock;
  if (row < n) p.panel[row * kBlock + e % kBlock] = p.matrix[row * n + from + e % kBlock];
}

// A_r,c -= panel_r X_i,c for the tile r = block + 1 + blockIdx.y, c = blockIdx.x <= i = block.
__global__ __launch_bounds__(kThreads) void below_kernel(const __grid_constant__ FactorParams p) {
  const int64_t n = p.n, from = int64_t{p.block} * kBlock;
  const int64_t row0 = from + (static_cast<int64_t>(blockIdx.y) + 1) * kBlock;
  const int64_t col0 = int64_t{blockIdx.x} * kBlock;
  const bool own = col0 == from;
  fill_along(left_tile(),
             [&](int i, int k) { return row0 + i < n ? p.panel[(row0 + i) * kBlock + k] : 0.0; });
  fill_across(right_tile(), [&](int j, int k) {
    // Above the diagonal of X_ii the matrix holds something else.
    return own && j > k ? 0.0 : p.matrix[(from + k) * n + col0 + j];
  });
  __syncthreads();
  tile_times([&](int i, int j, double sum) {
    if (row0 + i >= n) return;
    double& place = p.matrix[(row0 + i) * n + col0 + j];
    place = own ? -sum : place - sum;
  });
}

__global__ __launch_bounds__(kThreads) void upper_kernel(const __grid_constant__ UpperParams p) {
  const int64_t n = p.n, row = blockIdx.y;
  const int64_t col = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (col >= n) return;
  p.upper[row * n + col] =
      col < row ? 0.0f : static_cast<float>(p.matrix[(n - 1 - row) * n + n - 1 - col]);
}

__global__ __launch_bounds__(kThreads) void diagonal_kernel(
    const __grid_constant__ DiagonalParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < p.n) p.to[i] = p.square[i * p.n + i];
}

}  // namespace

void launch_reverse(const ReverseParams& params, cudaStream_t stream) {
  launch(reverse_kernel, dim3(blocks_for(params.n, kThreads), static_cast<unsigned>(params.n)),
         kThreads, 0, params, stream);
}

void launch_invert_factor(FactorParams params, cudaStream_t stream) {
  const auto blocks = static_cast<int>(blocks_for(params.n, kBlock));
  const auto below = [&] { return static_cast<unsigned>(blocks - 1 - params.block); };
  for (params.block = 0; params.block < blocks; ++params.block) {
    launch(diagonal_block_kernel, dim3(1), kThreads, kTileBytes, params, stream);
    if (below() == 0) break;
    launch(panel_kernel, dim3(below()), kThreads, kTileBytes, params, stream);
    launch(trailing_kernel, dim3(below(), below()), kThreads, kTileBytes, params, stream);
  }
  for (params.block = 0; params.block < blocks; ++params.block) {
    const auto tiles = static_cast<unsigned>(params.block + 1);
    launch(inverse_row_kernel, dim3(tiles), kThreads, kTileBytes, params, stream);
    if (below() == 0) break;
    launch(keep_panel_kernel, dim3(blocks_for(int64_t{below()} * kBlock * kBlock, kThreads)),
           kThreads, 0, params, stream);
    launch(below_kernel, dim3(tiles, below()), kThreads, kTileBytes, params, stream);
  }
}

void launch_upper(const UpperParams& params, cudaStream_t stream) {
  launch(upper_kernel, dim3(blocks_for(params.n, kThreads), static_cast<unsigned>(params.n)),
         kThreads, 0, params, stream);
}

void launch_diagonal(const DiagonalParams& params, cudaStream_t stream) {
  launch(diagonal_kernel, dim3(blocks_for(params.n, kThreads)), kThreads, 0, params, stream);
}

}  // namespace atom::cuda
