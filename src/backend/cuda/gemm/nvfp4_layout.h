// Memory layouts of the NVFP4 GEMM. Codes are E2M1's bits on both sides and lie as in
// w4a4_s4_layout.h, whose order is also that of mma m16n8k64 with block scales; outliers as in
// w4a8_layout.h. What differs are the scales, bytes of E4M3, one for 16 columns, eight a block:
//
// Weights, a body block of 64 rows x 128 columns:
//      0     codes
//   4096     scales  [row 64][column group 8]
//
// Activations:
//      codes    [body block][token][64 bytes]
//      scales   [body block][token][column group 8]
//      outliers [block][token][128 bytes]
//
// Beside them every row and every token has a float that its scales are multiplied by; those of
// rows are followed by the scales of their outliers. Groups of 16 or a multiple of it: longer ones
// have the same scale several times. Codes and scales behind the body are zero.
#pragma once

#include <cstdint>

#include "backend/cuda/gemm/w4a4_s4_layout.h"

namespace atom::cuda::nvfp4 {

inline constexpr int kGroup = 16;                               // columns under a scale
inline constexpr int kBlockGroups = w4a8::kBlockCols / kGroup;  // of a row or token in a block
// A block's scales take the bytes of so many groups of w4a8.
inline constexpr int kShapeGroups = w4a8::kBlockRows * kBlockGroups / w4a8::kScaleBytes;

// Byte of a row's (0..63) scale of group g (0..7) of a weight block.
constexpr int weight_scale_place(int row, int g) {
  return w4a8::kScaleOffset + row * kBlockGroups + g;
}
// Of a token's scale of group g of body block b; capacity: tokens of the buffer.
constexpr int64_t activation_scale_byte(const w4a8::Shape& shape, int64_t b, int64_t token, int g,
                                        int64_t capacity) {
  return shape.body_blocks * capacity * w4a4_s4::kActBlockBytes +
         (b * capacity + token) * kBlockGroups + g;
}
// Where the outlier blocks begin.
constexpr int64_t outlier_start(const w4a8::Shape& shape, int64_t capacity) {
  return shape.body_blocks * capacity * (w4a4_s4::kActBlockBytes + kBlockGroups);
}
// Floats behind the first row's unit at which the first row's outlier scale stands.
constexpr int64_t outlier_scale_offset(int64_t rows) {
  return (rows + w4a8::kBlockRows - 1) / w4a8::kBlockRows * w4a8::kBlockRows;
}

}  // namespace atom::cuda::nvfp4
