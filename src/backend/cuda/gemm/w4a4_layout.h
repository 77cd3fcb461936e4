// Memory layouts of the w4a4 GEMM, shared by the host packer, the quantizers and the kernel.
// Blocks, shapes and the order of bytes are those of w4a8_layout.h; what differs is what the bytes
// mean.
//
// E4M3 with its exponent field at most 1 is sign and magnitude in units of 2^-9: the bytes 0x00 ..
// 0x0f and 0x80 .. 0x8f are 0 .. 15 and -0 .. -15. So 4-bit codes become tensor core operands by
// masks, and an activation code is its sign and its magnitude.
//
// Weights: a code is a sign s and three bits m: m for s = 0, -(m + 1) for s = 1, which is -8..7.
// A word holds 8 codes: of four columns (byte i: sign in bit 7, m in bits 2..0) and of the four
// columns 16 further, which come to the same places when the word is rotated left by four:
//
//   bit       31       28 27 26  24 23       20 19 18  16 ...  7        4  3  2   0
//           | s3 | m0'    | s3'| m3 | s2 | m3'    | s2'| m2 |...| s0 | m1'   | s0'| m0 |
//
// E2M1's bits are e4m3's under another exponent: sign, two bits of exponent and one of mantissa in
// bits 7 and 4..2 are a code (twice E2M1's number) in units of 2^-7, so that one mask makes
// operands of four columns (s eem); those of the four columns 16 further (s' e'f'm') fill the gaps:
//
//   bit       7   6   5   4  3  2   1   0     of byte i
//           | s | e'| s'| e  e  m | f'| m'|
//
//   scales    [group][row pair 32] {f16 of row r, f16 of row r + 8}
//
// Activations: the bytes above for body columns, int8 for outlier columns. Body scales are f32,
// [block * groups + group][capacity], tokens of 16 in the order that a thread reads them in.
#pragma once

#include <bit>
#include <cstdint>

#include "backend/cuda/gemm/w4a8_layout.h"

namespace atom::cuda::w4a4 {

inline constexpr float kUnit = 0x1p-9f;        // of an operand byte
inline constexpr float kE2M1Unit = 0x1p-7f;    // of one that has E2M1's bits
inline constexpr int kMostCode = 15;           // magnitude of an activation code
inline constexpr int kMostGroupSum = 1 << 14;  // up to here the tensor cores add exactly

// The operand byte of an activation code, |code| <= 15.
constexpr uint8_t operand_byte(int code) {
  return static_cast<uint8_t>(code < 0 ? 0x80 | -code : code);
}

constexpr int code_of(uint8_t operand) {
  const int magnitude = operand & 0x7f;
  return (operand & 0x80) != 0 ? -magnitude : magnitude;
}

// Four codes (-8..7), each in two's complement in the low half of a byte, as they stand in a word:
// that of its own four columns, or that of those 16 further before it is rotated right by four.
constexpr uint32_t sign_magnitudes(uint32_t nibbles) {
  const uint32_t signs = nibbles & 0x08080808u;
  return signs << 4 | ((nibbles & 0x07070707u) ^ (signs - (signs >> 3)));
}
// Eight nibbles of E2M1, each in the low half of a byte, as they stand in a word: those of its own
// four columns and those of the four columns 16 further.
constexpr uint32_t e2m1_word(uint32_t own, uint32_t further) {
  return (own & 0x08080808u) << 4 | (own & 0x07070707u) << 2 | (further & 0x04040404u) << 4 |
         (further & 0x08080808u) << 2 | (further & 0x03030303u);
}
// The bits of a nibble of such a word: byte i, of its own columns (col_half 0) or those 16 further.
constexpr int e2m1_bits_in(uint32_t word, int byte, int col_half) {
  const uint32_t bits = word >> (8 * byte);
  const uint32_t nibble = col_half == 0 ? (bits >> 4 & 8u) | (bits >> 2 & 7u)
                                        : (bits >> 2 & 8u) | (bits >> 4 & 4u) | (bits & 3u);
  return static_cast<int>(nibble);
}

// A code of a word of integers: byte i, of its own columns (col_half 0) or of those 16 further (1).
constexpr int code_in(uint32_t word, int byte, int col_half) {
  const uint32_t bits = std::rotl(word, 4 * col_half) >> (8 * byte);
  const int m = static_cast<int>(bits & 7);
  return (bits & 0x80) != 0 ? -(m + 1) : m;
}

// Where token t's scales stand: {0, 1, 8, 9}, {2, 3, 10, 11} ... of every 16 tokens.
constexpr int64_t scale_slot(int64_t t) {
  return t / 16 * 16 + t % 8 / 2 * 4 + t % 16 / 8 * 2 + t % 2;
}

}  // namespace atom::cuda::w4a4
