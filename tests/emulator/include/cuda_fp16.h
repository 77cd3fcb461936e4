#pragma once

#include "cuda_runtime.h"
#include "tensor/dtype.h"

struct __half {
  uint16_t bits;
  explicit operator float() const { return atom::f16_to_f32(bits); }
};
struct __half2 {
  __half x, y;
};
inline __half __float2half_rn(float value) { return {atom::f32_to_f16(value)}; }
inline float __half2float(__half value) { return atom::f16_to_f32(value.bits); }
inline float2 __half22float2(__half2 v) { return {__half2float(v.x), __half2float(v.y)}; }
