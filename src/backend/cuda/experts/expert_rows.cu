// Rows on their way to their experts and back.
#include "backend/cuda/experts/expert_kernels.h"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kThreads = 256;

// Codes of a token, 16 bytes at a time from column `first` on; a piece stands where its first
// column does.
__device__ void copy_codes(const GatherRoutedParams& p, int64_t token, int64_t row, int64_t first,
                           int64_t end, int width) {
  for (int64_t column = first + static_cast<int>(threadIdx.x) * width; column < end;
       column += kThreads * width) {
    *reinterpret_cast<uint4*>(p.to.codes + p.to.places.byte(row, column)) =
        *reinterpret_cast<const uint4*>(p.from.codes + p.from.places.byte(token, column));
  }
}

// A CTA a routed row.
__global__ __launch_bounds__(kThreads) void gather_routed_kernel(
    const __grid_constant__ GatherRoutedParams p) {
  wait_for_previous();
  let_next_start();
  const int64_t row = blockIdx.x, token = p.sources[row];
  const auto thread = static_cast<int>(threadIdx.x);
  const CodePlaces& from = p.from.places;
  const CodePlaces& to = p.to.places;
  if (p.from.codes != nullptr) {
    if (from.blocked()) {
      const int64_t outliers = (from.shape.outlier_blocks + 1) / 2 * int64_t{w4a8::kBlockCols};
      copy_codes(p, token, row, 0, from.outlier_offset, takes_nibbles(from.layout) ? 32 : 16);
      copy_codes(p, token, row, from.outlier_offset, from.outlier_offset + outliers, 16);
    } else {
      copy_codes(p, token, row, 0, from.stride, 16);
    }
    if (has_e4m3_scales(from.layout)) {
      constexpr int kWordCols = 4 * nvfp4::kGroup;
      for (int i = thread; i < from.outlier_offset / kWordCols; i += kThreads) {
        const int64_t column = int64_t{i} * kWordCols;
        *reinterpret_cast<uint32_t*>(p.to.codes + to.scale_byte(row, column)) =
            *reinterpret_cast<const uint32_t*>(p.from.codes + from.scale_byte(token, column));
      }
    }
    const int64_t width = from.blocked() ? w4a8::kBlockCols / from.shape.groups : 1;
    for (int g = thread; g < p.scale_count; g += kThreads) {
      p.to.scales[to.scale_places(row, g, width, p.scale_count).first] =
          p.from.scales[from.scale_places(token, g, width, p.scale_count).first];
    }
    if (thread == 0) p.to.outlier_scales[row] = p.from.outlier_scales[token];
    if (thread == 0 && p.from.sums != nullptr) p.to.sums[row] = p.from.sums[token];
  }
  for (int i = thread; i < p.value_count; i += kThreads) {
    p.to.values[row * p.value_count + i] = p.from.values[token * p.value_count + i];
  }
  for (int i = thread; i < p.half_count; i += kThreads) {
    p.to.halves[to.half(row, i)] = p.from.halves[from.half(token, i)];
  }
}

// kWidth columns a thread.
template <int kWidth>
__global__ __launch_bounds__(kThreads) void combine_kernel(
    const __grid_constant__ CombineParams p) {
  wait_for_previous();
  let_next_start();
  const int64_t t = blockIdx.x;
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kWidth;
  if (column >= p.cols) return;
  const auto load = [column, &p](const float* rows, int64_t row, float(&v)[kWidth]) {
    const float* from = rows + row * p.cols + column;
    if constexpr (kWidth == 4) {
      *reinterpret_cast<float4*>(v) = *reinterpret_cast<const float4*>(from);
    } else {
      v[0] = *from;
    }
  };
  alignas(16) float sum[kWidth], part[kWidth];
  load(p.y, t, sum);
  const int active = p.routing.active;
  for (int64_t i = t * active; i < (t + 1) * active; ++i) {
    const float weight = p.routing.weights[i];
    load(p.x, p.routing.rows[i], part);
#pragma unroll
    for (int c = 0; c < kWidth; ++c) sum[c] = fmaf(weight, part[c], sum[c]);
  }
  float* to = p.y + t * p.cols + column;
  if constexpr (kWidth == 4) {
    *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(sum);
  } else {
    *to = sum[0];
  }
}

template <int kWidth>
void start_combine(const CombineParams& p, cudaStream_t stream) {
  launch_chained(combine_kernel<kWidth>,
                 dim3(static_cast<unsigned>(p.tokens), blocks_for(p.cols, kWidth * kThreads)),
                 kThreads, 0, p, stream);
}

}  // namespace

void launch_gather_routed(const GatherRoutedParams& params, cudaStream_t stream) {
  if (params.rows == 0) return;
  launch_chained(gather_routed_kernel, dim3(static_cast<unsigned>(params.rows)), kThreads, 0,
                 params, stream);
}

void launch_combine(const CombineParams& params, cudaStream_t stream) {
  if (params.tokens == 0) return;
  if (params.cols % 4 == 0) return start_combine<4>(params, stream);
  start_combine<1>(params, stream);
}

}  // namespace atom::cuda
