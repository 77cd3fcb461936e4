// Where the codes and scales of activations lie, for every layout of linear/layout.h.
//
//   kRows     codes [T, stride], outliers from outlier_offset on      scales [T, groups]
//   others    blocks of 128 columns of the body, then of the outliers, [block][capacity]
//     kW4A8, kW8A8  a byte a code                         scales [capacity]
//     kW4A4         a byte of sign and magnitude (body)   scales [block groups][capacity]
//     kW4A4S4       a nibble a code (body)                scales [block groups][capacity]
//     kNvFp4        the same                              units [capacity], and among the codes
//                                                         E4M3 scales [block][capacity][8]
//     kNvFp4Sm100a  the same; outliers in blocks of 64    the same in blocks of 128 tokens
//     kW4A16        no codes, but halves
// Activations in halves are rows of `stride` of them, or blocks of 64 columns (kW4A16).
#pragma once

#include <cstdint>

#include "backend/cuda/gemm/nvfp4_layout.h"
#include "backend/cuda/gemm/nvfp4_sm100a_layout.h"
#include "backend/cuda/gemm/w4a16_layout.h"
#include "backend/cuda/gemm/w4a4_layout.h"
#include "backend/cuda/gemm/w4a4_s4_layout.h"
#include "backend/cuda/gemm/w4a8_layout.h"
#include "backend/cuda/linear/layout.h"
#include "tensor/packing.h"

namespace atom::cuda {

struct CodePlaces {
  LinearLayout layout = LinearLayout::kRows;
  CodeGrid grid = CodeGrid::kInt;  // of nibbles
  int64_t stride = 0;              // kRows: bytes, or halves, of a token
  int64_t capacity = 0;            // others: tokens that buffers are laid out for
  int64_t outlier_offset = 0;      // columns before the outliers: of a row, or of whole blocks
  w4a8::Shape shape;               // of blocks

  constexpr bool blocked() const { return layout != LinearLayout::kRows; }

  // Byte of a token's code. column: of the body, or outlier_offset + that of an outlier.
  constexpr int64_t byte(int64_t token, int64_t column) const {
    if (!blocked()) return token * stride + column;
    if (layout == LinearLayout::kNvFp4Sm100a) return sm100a_byte(token, column);
    int64_t start = 0;
    if (takes_nibbles(layout)) {
      if (column < outlier_offset) {
        return w4a4_s4::activation_byte(column / w4a8::kBlockCols, token, column % w4a8::kBlockCols,
                                        capacity);
      }
      start = layout == LinearLayout::kNvFp4 ? nvfp4::outlier_start(shape, capacity)
                                             : w4a4_s4::outlier_start(shape, capacity);
      column -= outlier_offset;
    }
    return start + w4a8::activation_offset(column / w4a8::kBlockCols, token,
                                           column % w4a8::kBlockCols, capacity);
  }
  constexpr int code(const int8_t* codes, int64_t token, int64_t column) const {
    const int8_t stored = codes[byte(token, column)];
    if (column >= outlier_offset) return stored;
    if (layout == LinearLayout::kW4A4) return w4a4::code_of(static_cast<uint8_t>(stored));
    if (takes_nibbles(layout)) {
      const int nibble = stored >> (column % 2 * 4) & 15;
      return grid == CodeGrid::kE2M1 ? e2m1_code(nibble) : (nibble ^ 8) - 8;
    }
    return stored;
  }

  // Byte of the E4M3 scale of a token's body column; those of 64 columns are together.
  constexpr int64_t scale_byte(int64_t token, int64_t column) const {
    const int64_t block = column / w4a8::kBlockCols;
    const auto g = static_cast<int>(column % w4a8::kBlockCols / nvfp4::kGroup);
    return layout == LinearLayout::kNvFp4Sm100a
               ? nvfp4_sm100a::activation_scale_byte(shape, block, token, g, capacity)
               : nvfp4::activation_scale_byte(shape, block, token, g, capacity);
  }
  // The scale of a token's body column, of a group of `group` columns out of `groups`.
  constexpr float scale(const int8_t* codes, const float* scales, int64_t token, int64_t column,
                        int64_t group, int64_t groups) const {
    const float stored = scales[scale_places(token, column / group, group, groups).first];
    if (!has_e4m3_scales(layout)) return stored;
    return e4m3_value(static_cast<uint8_t>(codes[scale_byte(token, column)])) * stored;
  }

  // Where a token's half stands. Runs of eight columns are together.
  constexpr int64_t half(int64_t token, int64_t column) const {
    return layout == LinearLayout::kW4A16 ? w4a16::activation_place(token, column, capacity)
                                          : token * stride + column;
  }
  constexpr int64_t half_count(int64_t tokens) const {
    return layout == LinearLayout::kW4A16 ? capacity * shape.body_blocks * w4a8::kBlockCols
                                          : tokens * stride;
  }

  // Where the scale of a token's group g, or its unit, stands: in `count` places, `step` apart.
  struct ScalePlaces {
    int64_t first, step;
    int count;
  };
  // group: body columns of each of the `groups` groups.
  constexpr ScalePlaces scale_places(int64_t token, int64_t g, int64_t group,
                                     int64_t groups) const {
    if (has_e4m3_scales(layout)) return {.first = token, .step = 0, .count = 1};
    if (layout == LinearLayout::kRows || takes_int8_blocks(layout)) {
      return {.first = token * groups + g, .step = 0, .count = 1};
    }
    const int64_t width = w4a8::kBlockCols / shape.groups;
    const int64_t first = g * group / width;
    const int64_t end =
        g + 1 == groups ? shape.body_blocks * shape.groups : (g + 1) * group / width;
    return {.first = first * capacity +
                     (layout == LinearLayout::kW4A4 ? w4a4::scale_slot(token) : token),
            .step = capacity,
            .count = static_cast<int>(end - first)};
  }

  // Bytes and floats that `tokens` tokens of `groups` groups take.
  constexpr int64_t code_bytes(int64_t tokens) const {
    if (!blocked()) return tokens * stride;
    const int64_t body = has_e4m3_scales(layout) ? w4a4_s4::kActBlockBytes + nvfp4::kBlockGroups
                         : takes_nibbles(layout) ? w4a4_s4::kActBlockBytes
                                                 : w4a8::kActBlockBytes;
    return capacity * (shape.body_blocks * body +
                       (shape.outlier_blocks + 1) / 2 * int64_t{w4a8::kActBlockBytes});
  }
  constexpr int64_t scale_count(int64_t tokens, int64_t groups) const {
    if (layout == LinearLayout::kRows) return tokens * groups;
    if (takes_int8_blocks(layout) || has_e4m3_scales(layout)) return capacity;
    return capacity * shape.body_blocks * shape.groups;
  }

 private:
  constexpr int64_t sm100a_byte(int64_t token, int64_t column) const {
    if (column < outlier_offset) {
      return nvfp4_sm100a::activation_byte(column / w4a8::kBlockCols, token,
                                           static_cast<int>(column % w4a8::kBlockCols / 2),
                                           capacity);
    }
    column -= outlier_offset;
    return nvfp4_sm100a::outlier_start(shape, capacity) +
           nvfp4_sm100a::activation_byte(column / w4a8::kOutlierCols, token,
                                         static_cast<int>(column % w4a8::kOutlierCols), capacity);
  }
};

}  // namespace atom::cuda
