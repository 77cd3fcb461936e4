// A linear's weights in GPU memory, as kernels see them: the checkpoint's arrays, or the blocks of
// a GEMM.
#pragma once

#include <cstdint>

#include "backend/cuda/gemm/w4a8_layout.h"
#include "backend/cuda/linear/layout.h"
#include "tensor/format_types.h"

namespace atom::cuda {

struct WeightView {
  WeightFormat format;
  int rows = 0, cols = 0;   // N, K
  int body = 0, group = 0;  // group: body columns under a scale
  LinearLayout layout = LinearLayout::kRows;
  bool gated = false;  // blocks whose GEMM yields silu(gate) * up
  w4a8::Shape shape;   // of blocks, where the layout has them: codes with the scales of groups

  const void* values = nullptr;           // kFloat: [N, K] of format.dtype
  const uint8_t* codes = nullptr;         // [N, body / 2] nibbles, or [N, body] bytes; or blocks
  const uint16_t* scales = nullptr;       // kGrouped: f16 [N, groups]
  const uint8_t* group_scales = nullptr;  // kTwoLevel: [N, groups]
  const int8_t* group_zeros = nullptr;    // kTwoLevel: [N, groups]
  const float* row_scales = nullptr;  // [N], blocks' padded to 64: pack_weights.h, half_groups.h
  const int8_t* outlier_codes = nullptr;     // INT8: [N, outlier_stride]
  const float* outlier_scales = nullptr;     // INT8 of kGrouped: [N]
  const uint16_t* outlier_values = nullptr;  // kFloat outliers: f16 [N, Ko]
  const uint16_t* half_bias = nullptr;       // F16 weights: f16 [N] or null
  const float* bias = nullptr;               // [N] or null
  int outlier_stride = 0;                    // Ko rounded up to 4, the rest zero
};

}  // namespace atom::cuda
