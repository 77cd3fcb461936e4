// The codes of a linear's weights, as quant/weight_quantizer.cpp finds them: columns one after
// another, every row for itself. In GPU memory the weights lie column after column, so that
// neighbouring threads take neighbouring rows:
//
//     columns [K, N]      column k, row n          errors [kColumnBlock, N]   of the running block
//     codes   [Kb, N]     a byte each              scales, zeros, inverses [N] of the running group
//
// For each block of kColumnBlock columns: a thread a row chooses the scales of the groups that
// begin there and rounds the block's columns, GPTQ's error going on to the later ones; then one
// product spreads the block's errors over all columns behind it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "tensor/format_types.h"

namespace atom::cuda {

inline constexpr int kColumnBlock = 128;

struct WeightParams {
  // Whether rows have a scale that is chosen before their groups'.
  bool has_row_scales() const {
    return format.kind == WeightKind::kTwoLevel || format.scales == GroupScales::kE4M3;
  }

  int rows = 0, cols = 0, body = 0;  // N, K, Kb
  int group = 0, groups = 0;         // body columns under a scale, and how many such groups
  WeightFormat format;
  bool search = false;  // ScaleRule::kSearch
  float clip = 1.0f;
  float divisor = 7.0f;  // of ScaleRule::kAbsmax
  float low = 0, high = 0;

  const float* weights = nullptr;     // [N, K]
  float* columns = nullptr;           // [K, N]
  const float* upper = nullptr;       // [K, K] U, or null: round to nearest
  const float* importance = nullptr;  // [K]
  float* errors = nullptr;
  float *scales = nullptr, *zeros = nullptr, *inverses = nullptr;
  float* row_units = nullptr;  // [N] row scales, kTwoLevel and E4M3

  int8_t* codes = nullptr;
  uint8_t* packed = nullptr;           // [N, Kb/2] nibbles, or [N, Kb]
  uint16_t* group_f16 = nullptr;       // kGrouped: [N, groups]
  uint8_t* group_scales = nullptr;     // kTwoLevel and E4M3: [N, groups]
  int8_t* group_zeros = nullptr;       // kTwoLevel: [N, groups]
  uint16_t* row_f16 = nullptr;         // [N] row scales of kTwoLevel and E4M3
  uint16_t* outlier_f16 = nullptr;     // [N] outlier scales of kGrouped
  int8_t* outlier_codes = nullptr;     // [N, Ko]
  uint16_t* outlier_values = nullptr;  // float outliers: f16 [N, Ko]

  int begin = 0, end = 0;  // the block's columns, set by the launcher
};

// weights -> packed and the arrays beside it.
void launch_quantize_weights(WeightParams params, cudaStream_t stream);

}  // namespace atom::cuda
