// Linears of every format, for those without a kernel of their own: exact integer sums on the
// tensor cores, float products in float. y [T, N] row-major f32 or f16.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/linear/weight_view.h"

namespace atom::cuda {

// Input channels whose products of bytes an int32 holds.
inline constexpr int64_t kMostSumChannels = 65536;

// Linears of one format and shape in one launch: rows offsets[i] .. offsets[i + 1] - 1 of x and y
// meet w[i]. GPU memory.
struct LinearGroups {
  const WeightView* w = nullptr;     // [count]
  const int32_t* offsets = nullptr;  // [count + 1]
  int count = 0;
};

// Codes times codes; float outliers are left to launch_float_linear.
struct IntegerLinearParams {
  WeightView w;                     // in rows, not kFloat
  const int8_t* x = nullptr;        // [T, x_stride], outliers from outlier_offset on
  int64_t x_stride = 0;             // multiple of 4
  int outlier_offset = 0;           // multiple of 4
  const float* x_scales = nullptr;  // [T, x_groups]
  int x_groups = 1;
  const float* x_outlier_scales = nullptr;  // [T]
  void* y = nullptr;
  bool halves = false;  // y's elements
  int tokens = 0;
  bool accumulate = false;
};
void launch_integer_linear(const IntegerLinearParams& params, cudaStream_t stream);
// params.w: any of the group's, for format and shape; params.tokens: the most that one has.
void launch_grouped_integer_linear(const IntegerLinearParams& params, const LinearGroups& groups,
                                   cudaStream_t stream);
// The same, faster, for bytes in groups of 32 on both sides; false: not served, nothing launched.
bool launch_byte_groups(const IntegerLinearParams& params, cudaStream_t stream);

// y (+)= x w^T over columns first .. K-1 of w, decoded; x [T, K - first]. The bias is added where
// first is 0.
struct FloatLinearParams {
  WeightView w;
  int first = 0;
  const void* x = nullptr;  // floats, or halves
  bool x_halves = false;
  void* y = nullptr;
  bool halves = false;  // y's elements
  int tokens = 0;
  bool accumulate = false;
};
void launch_float_linear(const FloatLinearParams& params, cudaStream_t stream);
// The fast kernel of 4-bit groups and few tokens, which launch_float_linear takes where it serves
// the case (false: it does not).
bool launch_nibble_linear(const FloatLinearParams& params, cudaStream_t stream);
// The linears that have a kernel for few rows: a mixture's router for the tokens of a decode step.
constexpr bool is_narrow(const WeightView& w, int64_t tokens) {
  return w.format.kind == WeightKind::kFloat && w.format.dtype == DType::kF32 && w.rows <= 64 &&
         tokens <= 128;
}
void launch_grouped_float_linear(const FloatLinearParams& params, const LinearGroups& groups,
                                 cudaStream_t stream);

// to [rows, K] = rows first_row .. of w, decoded.
struct ExpandParams {
  WeightView w;
  int64_t first_row = 0, rows = 0;
  float* to = nullptr;
};
void launch_expand_weights(const ExpandParams& params, cudaStream_t stream);

// y[t] = row ids[t] of w, decoded; id -1 - r stands for earlier[r]. Ids outside of the table are
// skipped.
struct EmbedParams {
  WeightView w;
  const int32_t* ids = nullptr;
  const int32_t* earlier = nullptr;  // where ids has such
  float* y = nullptr;
  int tokens = 0;
};
void launch_embed(const EmbedParams& params, cudaStream_t stream);

}  // namespace atom::cuda
