// Choosing the grid of one body group for a chunk of rows at once. The weights of a chunk are kept
// column by column, so that every loop runs over rows and vectorises without reassociating sums:
//
//     w[k * kChunkRows + r]     column k, row r of the chunk
#pragma once

#include <cstdint>

#include "quant/weight_quantizer.h"

namespace atom {

inline constexpr int64_t kChunkRows = 32;

// The grid of one group for each row of a chunk: value = (code * scale + zero).
struct GroupGrid {
  alignas(64) float scale[kChunkRows];    // kGrouped: as it is stored, may be negative; 0: all zero
                                          // kTwoLevel: row_scale * group scale
  alignas(64) float zero[kChunkRows];     // kGrouped: 0; kTwoLevel: row_scale * group zero
  alignas(64) float inverse[kChunkRows];  // 1 / scale, or 0
  float low = 0, high = 0;                // code range
  CodeGrid codes = CodeGrid::kInt;
  uint8_t group_scale[kChunkRows] = {};  // kTwoLevel
  int8_t group_zero[kChunkRows] = {};    // kTwoLevel
};

// w: columns of the group, importance: [columns]. row_scale: [kChunkRows], of kTwoLevel and E4M3
// scales. divisor: of kAbsmax, see ScaleRule.
void choose_grouped_grid(const float* w, int64_t columns, const WeightQuantSpec& spec,
                         float divisor, const float* row_scale, const float* importance,
                         GroupGrid& grid);
void choose_two_level_grid(const float* w, int64_t columns, const WeightQuantSpec& spec,
                           const float* row_scale, const float* importance, GroupGrid& grid);

// Codes and the values they stand for, of one column.
void round_column(const float* w, const GroupGrid& grid, float* codes, float* values);

}  // namespace atom
