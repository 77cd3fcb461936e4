// Memory layouts of the w4a8 GEMM, shared by the host packer, the quantizers and the kernel.
//
// Weights: blocks of 64 rows x 128 body columns, then blocks of 64 rows x 64 outlier columns, each
// kBlockBytes apart; block (rows 64i.., number b along K) is number i * blocks + b.
//
//   body block      0     chunk 0: k 0..63    [thread 128][word 4]      16 bytes a thread
//                2048     chunk 1: k 64..127
//                4096     scales  [group][row pair 32] {s, z+128 of row r; s, z+128 of row r+8}
//   word 2*(step%2) + h of chunk step/2 holds, for k-step `step` of 32 columns, the row
//   16*(t/32) + (t%32)/4 + 8h and the columns 4(t%4)..+3 in its low nibbles, +16 in its high ones:
//   the order of wgmma's A operand, so that a thread unpacks what it multiplies.
//   outlier block   [step 2][thread 128][word 4]  int8 in the same order, word 2*(column/16) + h
//
// w8a8 has the same blocks without scales and with a whole byte a code, `wide` ones:
//
//   body block      0     [row 64][column 128]  int8, swizzled as a token's 128 bytes below
//
// Activations: int8 in blocks of 128 columns, [block][token][128], so that any run of tokens of a
// block is contiguous. Within a token's 128 bytes, 16-byte piece p stands at p ^ (token % 8), which
// is the tensor cores' 128-byte swizzle. Outlier columns begin a block of their own. Columns that
// no channel stands for are zero: the kernel works with weight + 128 and takes 128 * sum(x) off
// again.
#pragma once

#include <cstdint>

namespace atom::cuda::w4a8 {

inline constexpr int kBlockRows = 64;         // weight rows of a block
inline constexpr int kBlockCols = 128;        // body columns of a block
inline constexpr int kOutlierCols = 64;       // outlier columns of a block
inline constexpr int kScaleOffset = 4096;     // of a body block's scales
inline constexpr int kScaleBytes = 128;       // of one group of a body block
inline constexpr int kWideBlockBytes = 8192;  // of a wide block
inline constexpr int kActBlockBytes = 128;    // of one token in one block

// Body and outlier blocks along K, and the scale groups inside a body block (1, 2 or 4).
struct Shape {
  int body_blocks = 0;
  int outlier_blocks = 0;
  int groups = 1;
  bool wide = false;
  constexpr int64_t block_bytes() const {
    return wide ? kWideBlockBytes : kScaleOffset + int64_t{groups} * kScaleBytes;
  }
  constexpr int blocks() const { return body_blocks + outlier_blocks; }  // of weights
  constexpr int act_blocks() const { return body_blocks + (outlier_blocks + 1) / 2; }
};

// Where column k of a k-step of 32 stands in wgmma's A operand, for a row of a block.
struct Place {
  int thread, row_half, col_half, byte;
};
constexpr Place fragment_place(int row, int k) {
  return {.thread = (row / 16) * 32 + (row % 8) * 4 + (k % 16) / 4,
          .row_half = (row % 16) / 8,
          .col_half = (k % 32) / 16,
          .byte = k % 4};
}
// Byte of a row's {scale, zero + 128} within a group's scales.
constexpr int scale_place(int row) { return ((row / 16) * 8 + row % 8) * 4 + (row % 16) / 8 * 2; }

// Byte of activation column k (0 <= k < 128) of block b of a token; capacity: tokens of the buffer.
constexpr int64_t activation_offset(int64_t b, int64_t token, int64_t k, int64_t capacity) {
  return (b * capacity + token) * kActBlockBytes + (((k / 16) ^ (token % 8)) * 16 + k % 16);
}

// Byte of a row's column k (0 <= k < 128) in a wide block.
constexpr int wide_place(int row, int k) {
  return static_cast<int>(activation_offset(0, row, k, kBlockRows));
}

}  // namespace atom::cuda::w4a8
