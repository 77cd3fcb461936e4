// Kernels that work on one token's row at a time, as host code sees them. All pointers are GPU
// memory; rows are contiguous.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/rows/code_places.h"
#include "ops/token_draw.h"
#include "tensor/format_types.h"

namespace atom::cuda {

// What a row is before it is quantized.
enum class RowSource : uint8_t {
  kCopy,  // x[perm]
  kNorm,  // (x * factor * weight)[perm], RMSNorm
  kSilu,  // silu(x[0, K)) * x[K, 2K)
};

struct QuantizeParams {
  RowSource source = RowSource::kCopy;
  const void* x = nullptr;  // floats, or halves (not for kNorm)
  bool halves = false;
  int tokens = 0, channels = 0;        // K
  const int32_t* perm = nullptr;       // [K] or null
  const float* norm_weight = nullptr;  // [K] of the source; of y where serves_group_rows()
  float eps = 0;
  ActFormat format = {};  // not quantized: only `values` is written
  OutlierKind outlier_kind = OutlierKind::kNone;
  int body = 0, group = 0;  // group: body channels under a scale
  float clips[5] = {};      // what a search tries
  CodePlaces places = {};
  int8_t* codes = nullptr;
  float* scales = nullptr;          // body / group of each token
  float* outlier_scales = nullptr;  // [T], INT8 outliers
  int32_t* sums = nullptr;          // [T] of the body's codes, or null
  float* values = nullptr;          // [T, value_count]: the last channels as floats, or null
  int value_count = 0;
  bool decoded_values = false;     // values are what codes stand for, all channels
  uint16_t* halves_out = nullptr;  // f16: everything, in place of values; or null
};
// Shared memory holds a row as floats.
inline constexpr int kMostRowChannels = 56 * 1024;
void launch_quantize_rows(const QuantizeParams& params, cudaStream_t stream);
// The fast kernels that launch_quantize_rows takes where they serve the case: of rows into halves,
// into bytes in groups of 32, and into w4a8 inputs (false: not served), and into groups of 4-bit
// codes, w4a4 inputs.
bool launch_half_rows(const QuantizeParams& params, cudaStream_t stream);
bool launch_byte_rows(const QuantizeParams& params, cudaStream_t stream);
bool launch_int8_rows(const QuantizeParams& params, cudaStream_t stream);
bool serves_group_rows(const QuantizeParams& params);
void launch_group_rows(const QuantizeParams& params, cudaStream_t stream);

struct DequantizeParams {
  int tokens = 0, channels = 0, body = 0, group = 0;
  OutlierKind outlier_kind = OutlierKind::kNone;
  CodePlaces places = {};
  const int8_t* codes = nullptr;  // null: values hold everything
  const float* scales = nullptr;
  const float* outlier_scales = nullptr;
  const float* values = nullptr;
  int value_count = 0;
  const uint16_t* halves = nullptr;  // f16 in place of all of these, or null
  float* y = nullptr;                // [T, K]
};
void launch_dequantize_rows(const DequantizeParams& params, cudaStream_t stream);

// y[i] = x[rows[i]], rows of `cols` floats; a negative row is skipped.
struct GatherParams {
  const float* x = nullptr;
  const int32_t* rows = nullptr;
  float* y = nullptr;
  int64_t count = 0, cols = 0;
};
void launch_gather_rows(const GatherParams& params, cudaStream_t stream);

// y[i] = the token chosen from x's row i, see Backend::choose_tokens; rows of `cols` floats.
struct ChooseParams {
  const float* x = nullptr;
  const TokenDraw* draws = nullptr;  // [rows], or null: the argmax of each
  int32_t* y = nullptr;
  int64_t rows = 0, cols = 0;
};
void launch_choose(const ChooseParams& params, cudaStream_t stream);
// What it takes without draws.
void launch_argmax(const ChooseParams& params, cudaStream_t stream);

// h [K, K] += x^T x over T rows of x, in the order of the rows; both triangles.
struct GramParams {
  const float* x = nullptr;
  float* h = nullptr;
  int64_t tokens = 0, channels = 0;
};
void launch_gram(const GramParams& params, cudaStream_t stream);

}  // namespace atom::cuda
