// Nibbles: two codes a byte, the one with the even index in the low half.
//
//     byte i:   | 7 6 5 4 | 3 2 1 0 |
//               | k = 2i+1|  k = 2i |
#pragma once

#include <cstdint>

namespace atom {

inline int unsigned_nibble(const uint8_t* row, int64_t k) {
  return (row[k / 2] >> (4 * (k % 2))) & 0xf;
}
inline int signed_nibble(const uint8_t* row, int64_t k) {
  return (unsigned_nibble(row, k) ^ 8) - 8;  // two's complement
}
// Stores the low four bits of code; the other half of the byte stays.
inline void set_nibble(uint8_t* row, int64_t k, int code) {
  const int shift = static_cast<int>(4 * (k % 2));
  row[k / 2] = static_cast<uint8_t>((row[k / 2] & ~(0xf << shift)) | ((code & 0xf) << shift));
}

}  // namespace atom
