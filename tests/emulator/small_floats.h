// The numbers that NVFP4 consists of, by their bits.
#pragma once

#include <cmath>
#include <cstdint>

namespace atom::emulator {

// | sign | exponent 2 | mantissa |
inline float e2m1(uint32_t bits) {
  constexpr float kMagnitudes[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  return (bits & 8) != 0 ? -kMagnitudes[bits & 7] : kMagnitudes[bits & 7];
}
// | not read | exponent 4, bias 7 | mantissa 3 |
inline float ue4m3(uint32_t bits) {
  const auto exponent = static_cast<int>(bits >> 3 & 15), mantissa = static_cast<int>(bits & 7);
  if ((bits & 127) == 127) return NAN;
  return exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                       : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
}

}  // namespace atom::emulator
