// simd.h for AVX-512 F, BW, VL, DQ and VNNI.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace atom::cpu {
namespace {

inline constexpr int64_t kLanes = 16;

struct Floats {
  __m512 v;
};
struct Ints {
  __m512i v;
};

// Mask of the first n lanes, n in 0..16.
ATOM_ALWAYS_INLINE __mmask16 first_lanes(int64_t n) {
  return static_cast<__mmask16>((1u << n) - 1u);
}

ATOM_ALWAYS_INLINE Floats splat(float x) { return {_mm512_set1_ps(x)}; }
ATOM_ALWAYS_INLINE Ints splat(int32_t x) { return {_mm512_set1_epi32(x)}; }
ATOM_ALWAYS_INLINE Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
ATOM_ALWAYS_INLINE Floats load_first(const float* p, int64_t n) {
  return {_mm512_maskz_loadu_ps(first_lanes(n), p)};
}
ATOM_ALWAYS_INLINE Floats load_half(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
ATOM_ALWAYS_INLINE Ints load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
ATOM_ALWAYS_INLINE Ints load_first(const int32_t* p, int64_t n) {
  return {_mm512_maskz_loadu_epi32(first_lanes(n), p)};
}
ATOM_ALWAYS_INLINE Ints load_u8(const uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
ATOM_ALWAYS_INLINE Ints load_s8(const int8_t* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
ATOM_ALWAYS_INLINE void store(float* p, Floats x) { _mm512_storeu_ps(p, x.v); }
ATOM_ALWAYS_INLINE void store_first(float* p, Floats x, int64_t n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), x.v);
}
ATOM_ALWAYS_INLINE void store(int32_t* p, Ints x) { _mm512_storeu_si512(p, x.v); }
// The low byte of each of the first n lanes.
ATOM_ALWAYS_INLINE void store_bytes_first(int8_t* p, Ints x, int64_t n) {
  _mm512_mask_cvtepi32_storeu_epi8(p, first_lanes(n), x.v);
}
// p[i] of the first n lanes' indices, 0 beyond.
ATOM_ALWAYS_INLINE Floats gather_first(const float* p, Ints i, int64_t n) {
  return {_mm512_mask_i32gather_ps(_mm512_setzero_ps(), first_lanes(n), i.v, p, 4)};
}

ATOM_ALWAYS_INLINE Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
ATOM_ALWAYS_INLINE Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
ATOM_ALWAYS_INLINE Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
ATOM_ALWAYS_INLINE Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
ATOM_ALWAYS_INLINE Floats fma(Floats a, Floats b, Floats c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
// c - a * b, rounded once.
ATOM_ALWAYS_INLINE Floats fnma(Floats a, Floats b, Floats c) {
  return {_mm512_fnmadd_ps(a.v, b.v, c.v)};
}
// As std::min and std::max: the first operand where the comparison is false.
ATOM_ALWAYS_INLINE Floats min(Floats a, Floats b) { return {_mm512_min_ps(b.v, a.v)}; }
ATOM_ALWAYS_INLINE Floats max(Floats a, Floats b) { return {_mm512_max_ps(b.v, a.v)}; }
ATOM_ALWAYS_INLINE Floats round_even(Floats a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
ATOM_ALWAYS_INLINE Floats negate(Floats a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
ATOM_ALWAYS_INLINE Floats to_float(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }
ATOM_ALWAYS_INLINE Ints to_int(Floats a) { return {_mm512_cvttps_epi32(a.v)}; }
ATOM_ALWAYS_INLINE Floats as_float(Ints a) { return {_mm512_castsi512_ps(a.v)}; }
// The power of two of |a|, its mantissa cleared.
ATOM_ALWAYS_INLINE Floats power_of_two(Floats a) {
  return {_mm512_castsi512_ps(
      _mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x7f800000)))};
}

ATOM_ALWAYS_INLINE Ints operator+(Ints a, Ints b) { return {_mm512_add_epi32(a.v, b.v)}; }
ATOM_ALWAYS_INLINE Ints operator-(Ints a, Ints b) { return {_mm512_sub_epi32(a.v, b.v)}; }
ATOM_ALWAYS_INLINE Ints operator*(Ints a, Ints b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
template <int kBits>
ATOM_ALWAYS_INLINE Ints shift_left(Ints a) {
  return {_mm512_slli_epi32(a.v, kBits)};
}
template <int kBits>
ATOM_ALWAYS_INLINE Ints shift_right(Ints a) {  // arithmetic
  return {_mm512_srai_epi32(a.v, kBits)};
}
// Lane i holds i.
ATOM_ALWAYS_INLINE Ints lane_index() {
  return {_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)};
}
// Lanes of a where lo <= i < hi holds for the lane's i, of b elsewhere.
ATOM_ALWAYS_INLINE Floats select_range(Ints i, int32_t lo, int32_t hi, Floats a, Floats b) {
  const __mmask16 inside = _mm512_cmpge_epi32_mask(i.v, _mm512_set1_epi32(lo)) &
                           _mm512_cmplt_epi32_mask(i.v, _mm512_set1_epi32(hi));
  return {_mm512_mask_blend_ps(inside, b.v, a.v)};
}

// Lane i of the result is lane i ^ kStride.
template <int kStride>
ATOM_ALWAYS_INLINE Floats swap_lanes(Floats a) {
  if constexpr (kStride == 1) return {_mm512_permute_ps(a.v, 0xb1)};
  if constexpr (kStride == 2) return {_mm512_permute_ps(a.v, 0x4e)};
  if constexpr (kStride == 4) return {_mm512_shuffle_f32x4(a.v, a.v, 0xb1)};
  if constexpr (kStride == 8) return {_mm512_shuffle_f32x4(a.v, a.v, 0x4e)};
}

// Adds lanes i and i + 8, then i + 4, i + 2, i + 1.
ATOM_ALWAYS_INLINE float sum_lanes(Floats a) {
  const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
ATOM_ALWAYS_INLINE float min_lane(Floats a) { return _mm512_reduce_min_ps(a.v); }
ATOM_ALWAYS_INLINE float max_lane(Floats a) { return _mm512_reduce_max_ps(a.v); }
ATOM_ALWAYS_INLINE int32_t sum_lanes(Ints a) { return _mm512_reduce_add_epi32(a.v); }

struct Codes {
  __m512i v;
};
ATOM_ALWAYS_INLINE Codes load_codes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
// Bits kShift .. kShift + kBits of the 32-bit word that a lane's four codes make.
template <int kShift, int kBits>
ATOM_ALWAYS_INLINE Ints code_bits(Codes c) {
  return {_mm512_and_si512(_mm512_srli_epi32(c.v, kShift), _mm512_set1_epi32((1 << kBits) - 1))};
}
// The four bits from kShift on of the same word, as floats.
template <int kShift>
ATOM_ALWAYS_INLINE Floats nibble_floats(Codes c) {
  // A permutation heeds the low four bits of an index alone.
  const __m512 table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return {_mm512_permutexvar_ps(_mm512_srli_epi32(c.v, kShift), table)};
}
ATOM_ALWAYS_INLINE void store_codes(uint8_t* p, Codes c) { _mm512_storeu_si512(p, c.v); }
ATOM_ALWAYS_INLINE Codes low_nibbles(Codes c) {
  return {_mm512_and_si512(c.v, _mm512_set1_epi8(0xf))};
}
ATOM_ALWAYS_INLINE Codes high_nibbles(Codes c) {
  return {_mm512_and_si512(_mm512_srli_epi16(c.v, 4), _mm512_set1_epi8(0xf))};
}
// e2m1_code + kE2M1ZeroPoint of the four bits that each byte is.
ATOM_ALWAYS_INLINE Codes e2m1_codes(Codes bits) {
  const __m512i table = _mm512_broadcast_i32x4(
      _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  return {_mm512_shuffle_epi8(table, bits.v)};
}
// nibble * scale + offset for the four codes of each lane, in bytes: neither the product (of 0..15
// and 0..16) nor the sum leaves 8 bits.
struct ByteScales {
  __m512i scale, offset;
};
// 16 scales and 16 zeros; the result of scale_nibbles is the signed weight + 128.
ATOM_ALWAYS_INLINE ByteScales load_byte_scales(const uint8_t* scales, const int8_t* zeros) {
  const __m512i spread =
      _mm512_set_epi8(12, 12, 12, 12, 8, 8, 8, 8, 4, 4, 4, 4, 0, 0, 0, 0, 12, 12, 12, 12, 8, 8, 8,
                      8, 4, 4, 4, 4, 0, 0, 0, 0, 12, 12, 12, 12, 8, 8, 8, 8, 4, 4, 4, 4, 0, 0, 0, 0,
                      12, 12, 12, 12, 8, 8, 8, 8, 4, 4, 4, 4, 0, 0, 0, 0);
  const __m512i scale = _mm512_shuffle_epi8(load_u8(scales).v, spread);
  const __m512i zero = _mm512_shuffle_epi8(load_s8(zeros).v, spread);
  return {_mm512_and_si512(scale, _mm512_set1_epi16(0xff)),
          _mm512_xor_si512(zero, _mm512_set1_epi8(-128))};
}
ATOM_ALWAYS_INLINE Codes scale_nibbles(Codes code, const ByteScales& s) {
  return {_mm512_add_epi8(_mm512_mullo_epi16(code.v, s.scale), s.offset)};
}

struct ByteSum {
  __m512i v;
};
using NibbleSum = ByteSum;
template <class Sum>
ATOM_ALWAYS_INLINE Sum start_sum(int32_t x) {
  return {_mm512_set1_epi32(x)};
}
// sum += the four codes of each lane times the four activations.
ATOM_ALWAYS_INLINE void dot(ByteSum& sum, Codes codes, const int8_t* acts) {
  int32_t four;
  std::memcpy(&four, acts, sizeof four);
  sum.v = _mm512_dpbusd_epi32(sum.v, codes.v, _mm512_set1_epi32(four));
}
ATOM_ALWAYS_INLINE ByteSum operator+(ByteSum a, ByteSum b) { return {_mm512_add_epi32(a.v, b.v)}; }
ATOM_ALWAYS_INLINE Ints total(ByteSum sum) { return {sum.v}; }
}  // namespace
}  // namespace atom::cpu
