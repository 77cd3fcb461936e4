// quantize_weights: weight_kernels.h.
// Work: a warp a CTA, a row a thread, the block's columns in shared memory (16 KB); errors spread
// by tiles of 64 x 64 (tile_product.cuh).   Rounds: as ops/weight_grid.h, nothing contracted.
// Bound: issue of single warps (about 35 thousand instructions a row and block), FP32 cores.
#include <cuda_fp16.h>

#include "backend/cuda/quantize/weight_kernels.h"
#include "backend/cuda/rows/tile_product.cuh"
#include "backend/cuda/runtime/launch.cuh"
#include "ops/weight_grid.h"
#include "tensor/packing.h"

namespace atom::cuda {
namespace {

constexpr int kRows = 32;  // of a CTA
constexpr int kThreads = 256;
constexpr int kTransposeTile = 32;

__device__ uint16_t half_bits(float value) { return __half_as_ushort(__float2half_rn(value)); }
__device__ float half_value(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
__device__ float limited(float value) {
  return fminf(fmaxf(value, -weight_grid::kLargestF16), weight_grid::kLargestF16);
}
__device__ float f16_scale(float scale) {
  return weight_grid::kept_scale(scale, half_value(half_bits(limited(scale))));
}
// An F16 scale of magnitudes, in bits: what is not all zero keeps one.
__device__ uint16_t magnitude_scale(float scale, float absmax) {
  const uint16_t bits = half_bits(scale);
  return bits == 0 && absmax > 0 ? uint16_t{1} : bits;
}
__device__ float inverse_of(float scale) { return scale == 0.0f ? 0.0f : 1.0f / scale; }

__global__ __launch_bounds__(kThreads) void transpose_kernel(
    const __grid_constant__ WeightParams p) {
  __shared__ float tile[kTransposeTile][kTransposeTile + 1];
  const int x = static_cast<int>(threadIdx.x) % kTransposeTile;
  const int y = static_cast<int>(threadIdx.x) / kTransposeTile;
  const int64_t row0 = int64_t{blockIdx.x} * kTransposeTile;
  const int64_t col0 = int64_t{blockIdx.y} * kTransposeTile;
  for (int i = y; i < kTransposeTile; i += kThreads / kTransposeTile) {
    if (row0 + i < p.rows && col0 + x < p.cols) {
      tile[i][x] = p.weights[(row0 + i) * p.cols + col0 + x];
    }
  }
  __syncthreads();
  for (int i = y; i < kTransposeTile; i += kThreads / kTransposeTile) {
    if (col0 + i < p.cols && row0 + x < p.rows) {
      p.columns[(col0 + i) * p.rows + row0 + x] = tile[x][i];
    }
  }
}

__global__ __launch_bounds__(kRows) void row_scale_kernel(const __grid_constant__ WeightParams p) {
  const int64_t row = int64_t{blockIdx.x} * kRows + threadIdx.x;
  if (row >= p.rows) return;
  const bool two_level = p.format.kind == WeightKind::kTwoLevel;
  const int64_t end = two_level ? p.cols : p.body;
  float absmax = 0;
#pragma unroll 8
  for (int64_t k = 0; k < end; ++k) absmax = fmaxf(absmax, fabsf(p.columns[k * p.rows + row]));
  const uint16_t scale = magnitude_scale(
      two_level ? weight_grid::row_scale(absmax) : weight_grid::row_unit(absmax), absmax);
  p.row_f16[row] = scale;
  p.row_units[row] = half_value(scale);
}

// The grid of the group that a row's thread is in.
struct Grid {
  float scale, zero, inverse;
};

// The candidate whose squared error is least; all are tried at once, each sum in the order of
// columns. weight(k) is column k's weight; make(candidate) its grid.
template <CodeGrid kCodes, int kCandidates, class Weight, class Make>
__device__ int search(const WeightParams& p, int first, const Weight& weight, const Make& make) {
  Grid trials[kCandidates];
  float errors[kCandidates] = {};
#pragma unroll
  for (int c = 0; c < kCandidates; ++c) trials[c] = make(c);
  for (int k = first; k < first + p.group; ++k) {
    const float w = weight(k), importance = p.importance[k];
#pragma unroll
    for (int c = 0; c < kCandidates; ++c) {
      const float code =
          weight_grid::weight_code(w, trials[c].zero, trials[c].inverse, p.low, p.high, kCodes);
      const float miss = code * trials[c].scale + trials[c].zero - w;
      errors[c] += importance * (miss * miss);
    }
  }
  int best = 0;
  float least = errors[0];
#pragma unroll
  for (int c = 1; c < kCandidates; ++c) {
    if (errors[c] >= least) continue;
    least = errors[c];
    best = c;
  }
  return best;
}

template <CodeGrid kCodes, class Weight>
__device__ Grid choose_grid(const WeightParams& p, int64_t row, int first, const Weight& weight) {
  float min = weight(first), max = min;
  for (int k = first + 1; k < first + p.group; ++k) {
    const float w = weight(k);
    min = fminf(min, w);
    max = fmaxf(max, w);
  }
  const int64_t at = row * p.groups + first / p.group;
  if (p.format.kind == WeightKind::kTwoLevel) {
    const float unit = p.row_units[row], inverse_unit = inverse_of(unit);
    const auto make = [&](int candidate) {
      const auto grid = weight_grid::two_level_grid(min, max, inverse_unit, candidate);
      const float scale = grid.scale * unit;
      return Grid{scale, grid.zero * unit, inverse_of(scale)};
    };
    const int best =
        p.search ? search<kCodes, weight_grid::kTwoLevelCandidates>(p, first, weight, make) : 0;
    const auto grid = weight_grid::two_level_grid(min, max, inverse_unit, best);
    p.group_scales[at] = static_cast<uint8_t>(grid.scale);
    p.group_zeros[at] = static_cast<int8_t>(grid.zero);
    return make(best);
  }
  const bool e4m3 = p.format.scales == GroupScales::kE4M3;
  const float unit = e4m3 ? p.row_units[row] : 0.0f;
  const auto make = [&](int candidate) {
    const float wanted = p.search ? weight_grid::grouped_scale(min, max, p.low, candidate)
                                  : weight_grid::absmax_scale(min, max, p.clip, p.divisor);
    const float scale = e4m3 ? weight_grid::e4m3_scale(wanted, unit) : f16_scale(wanted);
    return Grid{scale, 0.0f, inverse_of(scale)};
  };
  const Grid grid =
      make(p.search ? search<kCodes, weight_grid::kGroupedCandidates>(p, first, weight, make) : 0);
  if (e4m3) {
    p.group_scales[at] = e4m3_bits(grid.scale / unit);
  } else {
    p.group_f16[at] = half_bits(grid.scale);
  }
  return grid;
}

template <CodeGrid kCodes>
__global__ __launch_bounds__(kRows) void column_block_kernel(
    const __grid_constant__ WeightParams p) {
  __shared__ float block[kColumnBlock][kRows];
  __shared__ float4 factor_row[2][kColumnBlock / 4];
  const int lane = static_cast<int>(threadIdx.x);
  // Threads past the last row go along with it: all lanes of the warp share U's rows.
  const int64_t own = int64_t{blockIdx.x} * kRows + lane;
  const bool real = own < p.rows;
  const int64_t row = real ? own : p.rows - 1;
  const int count = p.end - p.begin;
#pragma unroll 8
  for (int k = 0; k < count; ++k) {
    block[k][lane] = p.columns[int64_t{p.begin + k} * p.rows + row];
  }
  const auto weight = [&](int k) {
    return k < p.end ? block[k - p.begin][lane] : p.columns[int64_t{k} * p.rows + row];
  };
  Grid grid = {p.scales[row], p.zeros[row], p.inverses[row]};
  for (int k = 0; k < count; ++k) {
    const int column = p.begin + k;
    if (column % p.group == 0) grid = choose_grid<kCodes>(p, row, column, weight);
    const float w = block[k][lane];
    const float code = weight_grid::weight_code(w, grid.zero, grid.inverse, p.low, p.high, kCodes);
    if (real) p.codes[int64_t{column} * p.rows + row] = static_cast<int8_t>(code);
    if (p.upper == nullptr) continue;
    // The block's part of U's row, which rows of columns that are no multiple of 4 do not align.
    float* u = reinterpret_cast<float*>(factor_row[k % 2]);
    const float* from = p.upper + int64_t{column} * p.cols + p.begin;
#pragma unroll
    for (int j = lane; j < kColumnBlock; j += kRows) u[j] = j < count ? from[j] : 0.0f;
    __syncwarp();
    const float error = (w - (code * grid.scale + grid.zero)) / u[k];
    if (real) p.errors[int64_t{k} * p.rows + row] = error;
#pragma unroll 8
    for (int j = k + 1; j < count; ++j) block[j][lane] -= error * u[j];
  }
  if (!real) return;
  p.scales[row] = grid.scale;
  p.zeros[row] = grid.zero;
  p.inverses[row] = grid.inverse;
}

// columns[j] -= sum over the block's k of U[k][j] * errors[k], for the columns j behind the block.
__global__ __launch_bounds__(kTileThreads) void spread_kernel(
    const __grid_constant__ WeightParams p) {
  const int64_t row0 = int64_t{blockIdx.x} * kTile, col0 = p.end + int64_t{blockIdx.y} * kTile;
  float sums[4][4] = {};
  tile_product<Along::kRows>(
      sums, p.end - p.begin,
      [&](int j, int64_t k) {
        return col0 + j < p.cols ? p.upper[(p.begin + k) * p.cols + col0 + j] : 0.0f;
      },
      [&](int n, int64_t k) { return row0 + n < p.rows ? p.errors[k * p.rows + row0 + n] : 0.0f; });
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t col = col0 + thread / 16 * 4 + i, row = row0 + thread % 16 * 4 + j;
      if (col < p.cols && row < p.rows) p.columns[col * p.rows + row] -= sums[i][j];
    }
  }
}

__global__ __launch_bounds__(kRows) void outlier_kernel(const __grid_constant__ WeightParams p) {
  const int64_t row = int64_t{blockIdx.x} * kRows + threadIdx.x;
  if (row >= p.rows) return;
  const int outliers = p.cols - p.body;
  const auto weight = [&](int k) { return p.columns[int64_t{p.body + k} * p.rows + row]; };
  if (p.format.outlier_kind == OutlierKind::kFloat) {
    for (int k = 0; k < outliers; ++k) {
      p.outlier_values[row * outliers + k] = half_bits(limited(weight(k)));
    }
    return;
  }
  float scale = 0;
  if (p.format.kind == WeightKind::kGrouped) {
    float absmax = 0;
    for (int k = 0; k < outliers; ++k) absmax = fmaxf(absmax, fabsf(weight(k)));
    const uint16_t bits = magnitude_scale(weight_grid::outlier_scale(absmax), absmax);
    p.outlier_f16[row] = bits;
    scale = half_value(bits);
  } else {
    scale = p.row_units[row];
  }
  for (int k = 0; k < outliers; ++k) {
    p.outlier_codes[row * outliers + k] =
        static_cast<int8_t>(weight_grid::outlier_code(weight(k), scale));
  }
}

// Four columns of a row are packed by a thread, neighbouring threads taking neighbouring rows.
__global__ __launch_bounds__(kThreads) void pack_kernel(const __grid_constant__ WeightParams p) {
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= p.rows) return;
  const int first = static_cast<int>(blockIdx.y) * 4;
  uint32_t code[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int signed_code = p.codes[int64_t{first + i} * p.rows + row];
    code[i] = static_cast<uint8_t>(p.format.grid == CodeGrid::kE2M1 ? e2m1_bits(signed_code)
                                                                    : signed_code);
  }
  uint8_t* to = p.packed;
  if (p.format.bits == 8) {
    to += row * p.body + first;
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = static_cast<uint8_t>(code[i]);
  } else {
    to += (row * p.body + first) / 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      to[i] = static_cast<uint8_t>((code[2 * i] & 15u) | code[2 * i + 1] << 4);
    }
  }
}

}  // namespace

void launch_quantize_weights(WeightParams params, cudaStream_t stream) {
  const unsigned warps = blocks_for(params.rows, kRows);
  launch(transpose_kernel,
         dim3(blocks_for(params.rows, kTransposeTile), blocks_for(params.cols, kTransposeTile)),
         kThreads, 0, params, stream);
  if (params.has_row_scales()) {
    launch(row_scale_kernel, dim3(warps), kRows, 0, params, stream);
  }
  for (params.begin = 0; params.begin < params.body; params.begin = params.end) {
    params.end =
        params.begin + kColumnBlock < params.body ? params.begin + kColumnBlock : params.body;
    if (params.format.grid == CodeGrid::kE2M1) {
      launch(column_block_kernel<CodeGrid::kE2M1>, dim3(warps), kRows, 0, params, stream);
    } else {
      launch(column_block_kernel<CodeGrid::kInt>, dim3(warps), kRows, 0, params, stream);
    }
    if (params.upper == nullptr || params.end == params.cols) continue;
    launch(spread_kernel,
           dim3(blocks_for(params.rows, kTile), blocks_for(params.cols - params.end, kTile)),
           kTileThreads, 0, params, stream);
  }
  if (params.body < params.cols) launch(outlier_kernel, dim3(warps), kRows, 0, params, stream);
  launch(pack_kernel,
         dim3(blocks_for(params.rows, kThreads), static_cast<unsigned>(params.body / 4)), kThreads,
         0, params, stream);
}

}  // namespace atom::cuda
