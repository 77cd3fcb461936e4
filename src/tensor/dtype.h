// Element types of plain (unpacked) tensors, and the 16-bit float conversions.
#pragma once

#include <bit>
#include <cstdint>

namespace atom {

enum class DType : uint8_t { kF32, kF16, kBF16, kI8, kU8, kI32 };

constexpr int64_t dtype_bytes(DType type) {
  switch (type) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kI8:
    case DType::kU8:
      return 1;
  }
  return 0;
}
// As safetensors spells it: "F32", "BF16", "U8" ...
const char* dtype_name(DType type);

// IEEE binary16 to float: exact, subnormals, infinities and NaN included.
float f16_to_f32(uint16_t half);
// Float to binary16, round half to even; overflow becomes infinity.
uint16_t f32_to_f16(float value);

inline float bf16_to_f32(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}
// Round half to even; NaN stays NaN.
inline uint16_t f32_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace atom
