#include "io/widen.h"

#include <bit>
#include <cstring>

#include "tensor/dtype.h"

namespace atom {
namespace {

template <class T>
T load(const uint8_t* in) {
  T value;
  std::memcpy(&value, in, sizeof value);
  return value;
}

// f16_to_f32 without branches, so that loops over it vectorise.
inline float widen_half(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t magnitude = (half & 0x7fffu) << 13;
  const uint32_t normal = magnitude + (112u << 23);
  const uint32_t special = magnitude + (224u << 23);  // infinity and NaN keep the top exponent
  const uint32_t tiny = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude + (113u << 23)) -
                                                std::bit_cast<float>(113u << 23));
  uint32_t bits = magnitude < (1u << 23) ? tiny : normal;
  bits = magnitude >= (31u << 23) ? special : bits;
  return std::bit_cast<float>(bits | sign);
}

}  // namespace

void widen_f32(const uint8_t* in, int64_t count, float* out) {
  std::memcpy(out, in, static_cast<size_t>(count) * sizeof(float));
}

void widen_f16(const uint8_t* __restrict in, int64_t count, float* __restrict out) {
  for (int64_t i = 0; i < count; ++i) out[i] = widen_half(load<uint16_t>(in + 2 * i));
}

void widen_bf16(const uint8_t* __restrict in, int64_t count, float* __restrict out) {
  for (int64_t i = 0; i < count; ++i) out[i] = bf16_to_f32(load<uint16_t>(in + 2 * i));
}

void widen_f64(const uint8_t* in, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(load<double>(in + 8 * i));
}

Widen find_widen(std::string_view dtype) {
  if (dtype == "F32") return widen_f32;
  if (dtype == "F16") return widen_f16;
  if (dtype == "BF16") return widen_bf16;
  if (dtype == "F64") return widen_f64;
  return nullptr;
}

}  // namespace atom
