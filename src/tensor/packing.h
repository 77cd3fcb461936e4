// Nibbles: two codes a byte, the one with the even index in the low half.
//
//     byte i:   | 7 6 5 4 | 3 2 1 0 |
//               | k = 2i+1|  k = 2i |
#pragma once

#include <bit>
#include <cstdint>

#include "tensor/format_types.h"

namespace atom {

inline int unsigned_nibble(const uint8_t* row, int64_t k) {
  return (row[k / 2] >> (4 * (k % 2))) & 0xf;
}
inline int signed_nibble(const uint8_t* row, int64_t k) {
  return (unsigned_nibble(row, k) ^ 8) - 8;  // two's complement
}
// The code of CodeGrid::kE2M1 that has the bits | sign | exponent 2 | mantissa |.
constexpr int e2m1_code(int bits) {
  const int exponent = bits / 2 % 4, mantissa = bits % 2;
  const int magnitude = exponent == 0 ? mantissa : (2 + mantissa) << (exponent - 1);
  return (bits & 8) != 0 ? -magnitude : magnitude;
}
// Its bits.
constexpr int e2m1_bits(int code) {
  const int magnitude = code < 0 ? -code : code;
  const int bits = magnitude <= 4 ? magnitude : magnitude == 6 ? 5 : magnitude == 8 ? 6 : 7;
  return code < 0 ? 8 | bits : bits;
}
// A positive E4M3 number by its bits, | 0 | exponent 4 | mantissa 3 |, below 0x7f, and the other
// way.
constexpr float e4m3_value(uint8_t bits) {
  return bits < 8 ? static_cast<float>(bits) * 0x1p-9f
                  : std::bit_cast<float>((uint32_t{bits} << 20) + (120u << 23));
}
constexpr uint8_t e4m3_bits(float value) {
  return static_cast<uint8_t>(value < 0x1p-6f
                                  ? static_cast<uint32_t>(value * 0x1p9f)
                                  : (std::bit_cast<uint32_t>(value) >> 20) - (120u << 3));
}
inline constexpr uint8_t kMostE4M3Bits = 0x7e;  // 448
// A 4-bit code of kGrouped weights.
inline int grouped_nibble(CodeGrid grid, const uint8_t* row, int64_t k) {
  return grid == CodeGrid::kE2M1 ? e2m1_code(unsigned_nibble(row, k)) : signed_nibble(row, k);
}
// Stores the low four bits of code; the other half of the byte stays.
inline void set_nibble(uint8_t* row, int64_t k, int code) {
  const int shift = static_cast<int>(4 * (k % 2));
  row[k / 2] = static_cast<uint8_t>((row[k / 2] & ~(0xf << shift)) | ((code & 0xf) << shift));
}

}  // namespace atom
