// Memory layouts of the NVFP4 GEMM by sm_100a's tensor cores. A block along K is 64 bytes of a row
// or token, 128 body columns of E2M1's bits, low nibble first, or 64 outlier columns of INT8. They
// stand in the tensor cores' 64-byte swizzle: 16-byte piece p of row or token r at p ^ (r / 2 % 4).
//
// Weights, a block of 128 rows; row blocks after one another, the blocks along K of each together:
//      0     codes   [row 128][64 bytes]
//   8192     scales of a body block, those of its first 64 columns, then of the others
//
// Activations:
//      codes    [body block][token][64 bytes]
//      scales   [body block][token / 128][as of a weight block]
//      outliers [outlier block][token][64 bytes]
//
// Scales are bytes of E4M3, one for 16 columns. Those of 128 rows x 64 columns are 512 bytes,
//
//      [row % 32][row / 32][column group 4]
//
// which one copy into tensor memory turns into 32 lanes of four columns, a word a row: what the
// block-scaled product reads (PTX ISA, "Layout of the Scale Factor A Matrix for scale_vec::4X").
// Units and outlier scales are those of nvfp4_layout.h. Codes and scales behind the body are zero.
#pragma once

#include <cstdint>

#include "backend/cuda/gemm/nvfp4_layout.h"

namespace atom::cuda::nvfp4_sm100a {

inline constexpr int kBlockRows = 128;       // of weights, and of tokens under a block of scales
inline constexpr int kRowBytes = 64;         // of a row or token in a block
inline constexpr int kPieceBytes = 16;       // that the swizzle keeps together
inline constexpr int kStepCols = 64;         // body columns of a product
inline constexpr int kStepScaleBytes = 512;  // of 128 rows
inline constexpr int kCodeBytes = kBlockRows * kRowBytes;
inline constexpr int kScaleBytes = w4a8::kBlockCols / kStepCols * kStepScaleBytes;
inline constexpr int kBlockBytes = kCodeBytes + kScaleBytes;

// The block takes the bytes of two of the shape's, which count 64 rows.
static_assert(kBlockBytes == 2 * w4a8::Shape{.groups = nvfp4::kShapeGroups}.block_bytes());
static_assert(kRowBytes == w4a8::kBlockCols / 2 && kRowBytes == w4a8::kOutlierCols);

// Byte `byte` of row `row` among rows of a block.
constexpr int64_t row_byte(int64_t row, int byte) {
  const int64_t piece = byte / kPieceBytes ^ (row / 2 % 4);
  return row * kRowBytes + piece * kPieceBytes + byte % kPieceBytes;
}
// Byte of a row's (0..127) scale of group g (0..7) among a block's scales.
constexpr int scale_byte(int row, int g) {
  constexpr int kGroups = kStepCols / nvfp4::kGroup;
  return g / kGroups * kStepScaleBytes + row % 32 * 16 + row / 32 * kGroups + g % kGroups;
}

// Of a token's byte in body or outlier block b; capacity: tokens of the buffer.
constexpr int64_t activation_byte(int64_t b, int64_t token, int byte, int64_t capacity) {
  return b * capacity * kRowBytes + row_byte(token, byte);
}
// Where the scales of the 128 tokens from `token` on, a multiple of 128, stand for body block b.
constexpr int64_t activation_scales(const w4a8::Shape& shape, int64_t b, int64_t token,
                                    int64_t capacity) {
  return shape.body_blocks * capacity * kRowBytes +
         (b * capacity + token) / kBlockRows * kScaleBytes;
}
// Of a token's scale of group g of body block b.
constexpr int64_t activation_scale_byte(const w4a8::Shape& shape, int64_t b, int64_t token, int g,
                                        int64_t capacity) {
  const auto in_block = static_cast<int>(token % kBlockRows);
  return activation_scales(shape, b, token - in_block, capacity) + scale_byte(in_block, g);
}
// Where the outlier blocks begin.
constexpr int64_t outlier_start(const w4a8::Shape& shape, int64_t capacity) {
  return activation_scales(shape, shape.body_blocks, 0, capacity);
}

}  // namespace atom::cuda::nvfp4_sm100a
