// Plain floating-point arrays, of any alignment, to float.
#pragma once

#include <cstdint>
#include <string_view>

namespace atom {

void widen_f32(const uint8_t* in, int64_t count, float* out);  // a copy
void widen_f16(const uint8_t* in, int64_t count, float* out);
void widen_bf16(const uint8_t* in, int64_t count, float* out);
void widen_f64(const uint8_t* in, int64_t count, float* out);  // rounds to nearest even

// The one for a dtype as safetensors spells it, "BF16"; null for types that are not among these.
using Widen = void (*)(const uint8_t* in, int64_t count, float* out);
Widen find_widen(std::string_view dtype);

}  // namespace atom
