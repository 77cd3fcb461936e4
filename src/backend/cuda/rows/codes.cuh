// Roundings to codes, and what they round, in few instructions: the bits of ops/numerics.h without
// its conversions between integers and floats, which run at a quarter of the rate.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace atom::cuda {

// Adding this rounds to an integer, half to even, and leaves the integer in the low bits: for
// magnitudes below 2^22.
inline constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23
inline constexpr uint32_t kRounderBits = 0x4b400000u;

// rint(value) within [low, high], integers from 0 to 2^22: clamping before rounding is the same. A
// NaN becomes `low`, as in numerics::kv_code.
__device__ inline uint32_t clamped_code(float value, float low, float high) {
  return __float_as_uint(__fadd_rn(fminf(fmaxf(value, low), high), kRounder)) - kRounderBits;
}

// Four INT8 codes of v / scale in a word, clamped to +-limit: 127, or 0 for a group that counts as
// zero, whatever is in it. A NaN becomes -limit, as in numerics::round_code.
__device__ inline uint32_t quantize4(const float (&v)[4], float inverse, float limit) {
  uint32_t code[4];
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const float q = fminf(fmaxf(__fmul_rn(v[e], inverse), -limit), limit);
    code[e] = __float_as_uint(__fadd_rn(q, kRounder));
  }
  return __byte_perm(__byte_perm(code[0], code[1], 0x0040), __byte_perm(code[2], code[3], 0x0040),
                     0x5410);
}

// The largest of the warp. Magnitudes order like their bits.
__device__ inline float warp_max(float magnitude) {
  return __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(magnitude)));
}

// numerics::exp of x in [-87, 88], where 2^n is a normal float, so that one product scales as its
// two do.
__device__ inline float exp_within(float x) {
  constexpr float kLog2E = 1.44269504f, kLn2Hi = 0.693359375f, kLn2Lo = -2.12194440e-4f;
  const float rounded = __fadd_rn(__fmul_rn(x, kLog2E), kRounder);
  const float n = __fsub_rn(rounded, kRounder);
  float r = fmaf(n, -kLn2Hi, x);
  r = fmaf(n, -kLn2Lo, r);
  float p = 1.3981999507e-3f;
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 0.5f);
  p = fmaf(p, r, 1.0f);
  p = fmaf(p, r, 1.0f);
  // The rounder's own bits leave the word.
  return __fmul_rn(p, __uint_as_float((__float_as_uint(rounded) << 23) + 0x3f800000u));
}

// numerics::silu_mul.
__device__ inline float silu_mul(float gate, float up) {
  const float e = exp_within(fminf(fmaxf(-87.0f, -gate), 88.0f));
  return __fmul_rn(__fdiv_rn(gate, __fadd_rn(1.0f, e)), up);
}

// The same where kLeastGate <= gate, which is finite and a half. These are the steps of __fdiv_rn
// for operands and quotients far from the ends of the floats; its test for others is a branch, and
// would keep the elements of a run from being computed side by side.
inline constexpr float kLeastGate = -80.0f;
__device__ inline float silu_mul_ordinary(float gate, float up) {
  const float divisor = __fadd_rn(1.0f, exp_within(fmaxf(-87.0f, -gate)));
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(divisor));
  inverse = fmaf(fmaf(-divisor, inverse, 1.0f), inverse, inverse);
  float quotient = __fmul_rn(gate, inverse);
  quotient = fmaf(fmaf(-divisor, quotient, gate), inverse, quotient);
  quotient = fmaf(fmaf(-divisor, quotient, gate), inverse, quotient);
  return __fmul_rn(quotient, up);
}

}  // namespace atom::cuda
