// Memory layouts of the w4a4 GEMM on INT4 tensor cores (sm_80 to sm_89) and of the FP4 GEMM by
// mma.sync. Blocks, shapes and outliers are those of w4a8_layout.h; what differs is the body, whose
// operands are nibbles on both sides, signed integers or E2M1's bits:
//
// Weights, a body block of 64 rows x 128 columns:
//      0     [step 2][thread 128][word 4]   16 bytes a thread for a k-step of 64 columns
//   4096     scales  [row pair 32] {f16 of row r, f16 of row r + 8}
//   word 2h + v of k-step s holds, low nibble first, row 16(t/32) + (t%32)/4 + 8v and the eight
//   columns 64s + 32h + 8(t%4) ..: the order of mma m16n8k64's A operand.
//
// Activations: body blocks [block][token][64 bytes], low nibble first; 16-byte piece p of a token
// stands at p ^ (token / 2 % 4), so that eight tokens of a piece meet no bank of shared memory
// twice. Outlier blocks as in w4a8_layout.h. Body scales f32, [block][capacity]. A group is 128
// columns or a multiple of them.
#pragma once

#include <cstdint>

#include "backend/cuda/gemm/w4a8_layout.h"

namespace atom::cuda::w4a4_s4 {

inline constexpr int kActBlockBytes = 64;  // of a token in a body block

// Byte and bit of the code of column k (0..127) of a row (0..63) of a weight block.
struct NibblePlace {
  int byte, shift;
};
constexpr NibblePlace weight_place(int row, int k) {
  const int thread = row / 16 * 32 + row % 8 * 4 + k % 32 / 8;
  const int word = k % 64 / 32 * 2 + row % 16 / 8;
  return {.byte = k / 64 * 2048 + thread * 16 + word * 4 + k % 8 / 2, .shift = k % 2 * 4};
}

// Of column k (0..127) of body block b of a token; capacity: tokens of the buffer.
constexpr int64_t activation_byte(int64_t b, int64_t token, int64_t k, int64_t capacity) {
  return (b * capacity + token) * kActBlockBytes + (k / 32 ^ (token / 2 % 4)) * 16 + k % 32 / 2;
}
// Where the outlier blocks begin, which lie as in w4a8_layout.h.
constexpr int64_t outlier_start(const w4a8::Shape& shape, int64_t capacity) {
  return shape.body_blocks * capacity * kActBlockBytes;
}

}  // namespace atom::cuda::w4a4_s4
