// Memory layouts of the w4a16 GEMM, shared by the host packer, the row kernels and the kernel.
//
// Weights: blocks of 128 rows x 128 columns; block (rows 128i.., number b along K) is number
// i * blocks + b. The scales stand in the middle, so that either half along K with its scales is
// one run of bytes.
//
//   block           0     columns 0..63     [row / 64][thread 128][word 4]
//                4096     scales            [group][row / 64][row pair 32] {f16 of r, f16 of r + 8}
//     4096 + scales     columns 64..127   [row / 64][thread 128][word 4]
//
//   Word s of a half holds, for its k-step s of 16 columns, what wgmma's A operand of halves wants
//   of a thread: of rows r = 16(t/32) + (t%32)/4 and r + 8 the columns 2(t%4), +1, +8 and +9. A
//   code is 0..15 and stands for code - 8:
//
//   bit    31 30 | 29  26 | 25  22 | 21  18 | 17  14 | 13  10 |  9   6 |  5   2 |  1  0
//          r+8,9   r+8,1     r,9      r,1     r+8,8    r+8,0    r,8      r,0     r+8,9
//
//   so that row r's codes, and row r + 8's after a rotation by eight bits, stand in bits 5..2 and
//   9..6 of halves: masked out they are the subnormal numbers code * 2^-22 and code * 2^-18.
//
// Scales are the checkpoint's times a power of two of the row's own, the inverse of which (and
// 2^22) is its row scale: the row's largest is from 2^14 to 2^15, where no code times its scale
// leaves F16's normal numbers.
//
// Activations: halves in blocks of 64 columns, [block][token][128 bytes], swizzled as in
// w4a8_layout.h. Columns that no channel stands for are zero.
#pragma once

#include <cstdint>

#include "backend/cuda/gemm/w4a8_layout.h"

namespace atom::cuda::w4a16 {

inline constexpr int kBlockRows = 128;        // weight rows of a block
inline constexpr int kHalfCols = 64;          // of half a block, and of a block of activations
inline constexpr int kHalfBytes = 4096;       // of half a block's codes
inline constexpr int kGroupBytes = 256;       // of a group's scales
inline constexpr int kZero = 8;               // the code of 0
inline constexpr float kLowUnit = 0x1p-22f;   // of a code in bits 5..2 of a half
inline constexpr float kHighUnit = 0x1p-18f;  // in bits 9..6
inline constexpr float kMostScale = 0x1p15f;  // what scales stay below
static_assert(kLowUnit * kMostScale * kZero < 1);

// groups: scale groups inside a block, 1, 2 or 4.
constexpr int block_bytes(int groups) { return 2 * kHalfBytes + groups * kGroupBytes; }
// Of a half and the scales it needs: its own, or those of the whole block's group.
constexpr int half_bytes(int groups) {
  return kHalfBytes + (groups > 1 ? groups / 2 : 1) * kGroupBytes;
}
// Bytes of a block where the codes of a half, and where the scales of a group stand.
constexpr int code_offset(int half, int row, int groups) {
  return half * (kHalfBytes + groups * kGroupBytes) + row / 64 * (kHalfBytes / 2);
}
constexpr int scale_offset(int group, int row) {
  return kHalfBytes + group * kGroupBytes + row / 64 * w4a8::kScaleBytes;
}

// Where the code of column k (0 <= k < 64) of a half stands, for a row of 64.
struct Place {
  int byte;  // of the word
  int bit;   // that the code's lowest is rotated to
};
constexpr Place code_place(int row, int k) {
  const int thread = row / 16 * 32 + row % 8 * 4 + k % 8 / 2;
  const int row_half = row % 16 / 8, col_half = k % 16 / 8;
  return {.byte = thread * 16 + k / 16 * 4,
          .bit = (2 + 4 * col_half + 16 * (k % 2) + 8 * row_half) % 32};
}

// Which half a token's column k is; capacity: tokens of the buffer.
constexpr int64_t activation_place(int64_t token, int64_t k, int64_t capacity) {
  return w4a8::activation_offset(k / kHalfCols, token, k % kHalfCols * 2, capacity) / 2;
}

}  // namespace atom::cuda::w4a16
