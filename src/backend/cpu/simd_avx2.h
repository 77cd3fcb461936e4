// simd.h for AVX2, FMA and F16C, with AVX-VNNI where the flags have it.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace atom::cpu {
namespace {

inline constexpr int64_t kLanes = 16;

struct Floats {
  __m256 lo, hi;
};
struct Ints {
  __m256i lo, hi;
};

// All ones in the first n of 16 lanes.
ATOM_ALWAYS_INLINE Ints first_lanes(int64_t n) {
  const __m256i count = _mm256_set1_epi32(static_cast<int32_t>(n));
  return {_mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
          _mm256_cmpgt_epi32(count, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))};
}

ATOM_ALWAYS_INLINE Floats splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
ATOM_ALWAYS_INLINE Ints splat(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
ATOM_ALWAYS_INLINE Floats load(const float* p) {
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
ATOM_ALWAYS_INLINE Floats load_first(const float* p, int64_t n) {
  const Ints mask = first_lanes(n);
  return {_mm256_maskload_ps(p, mask.lo), _mm256_maskload_ps(p + 8, mask.hi)};
}
ATOM_ALWAYS_INLINE Floats load_half(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
ATOM_ALWAYS_INLINE Ints load(const int32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
}
ATOM_ALWAYS_INLINE Ints load_first(const int32_t* p, int64_t n) {
  const Ints mask = first_lanes(n);
  return {_mm256_maskload_epi32(p, mask.lo), _mm256_maskload_epi32(p + 8, mask.hi)};
}
ATOM_ALWAYS_INLINE Ints load_u8(const uint8_t* p) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8))};
}
ATOM_ALWAYS_INLINE Ints load_s8(const int8_t* p) {
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_srli_si128(v, 8))};
}
ATOM_ALWAYS_INLINE void store(float* p, Floats x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}
ATOM_ALWAYS_INLINE void store_first(float* p, Floats x, int64_t n) {
  const Ints mask = first_lanes(n);
  _mm256_maskstore_ps(p, mask.lo, x.lo);
  _mm256_maskstore_ps(p + 8, mask.hi, x.hi);
}
ATOM_ALWAYS_INLINE void store(int32_t* p, Ints x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), x.hi);
}
// The low byte of each of the first n lanes.
ATOM_ALWAYS_INLINE void store_bytes_first(int8_t* p, Ints x, int64_t n) {
  const __m256i low = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                       0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i a = _mm256_shuffle_epi8(x.lo, low), b = _mm256_shuffle_epi8(x.hi, low);
  const __m256i ab = _mm256_unpacklo_epi32(a, b);  // a0 b0 | a1 b1 in 32-bit words
  const __m128i bytes = _mm_unpacklo_epi32(_mm256_castsi256_si128(ab),
                                           _mm256_extracti128_si256(ab, 1));  // a0 a1 b0 b1
  if (n == kLanes) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
    return;
  }
  alignas(16) int8_t all[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(all), bytes);
  std::memcpy(p, all, static_cast<size_t>(n));
}
// p[i] of the first n lanes' indices, 0 beyond.
ATOM_ALWAYS_INLINE Floats gather_first(const float* p, Ints i, int64_t n) {
  const Ints mask = first_lanes(n);
  const __m256 zero = _mm256_setzero_ps();
  return {_mm256_mask_i32gather_ps(zero, p, i.lo, _mm256_castsi256_ps(mask.lo), 4),
          _mm256_mask_i32gather_ps(zero, p, i.hi, _mm256_castsi256_ps(mask.hi), 4)};
}

ATOM_ALWAYS_INLINE Floats operator+(Floats a, Floats b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
ATOM_ALWAYS_INLINE Floats operator-(Floats a, Floats b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
ATOM_ALWAYS_INLINE Floats operator*(Floats a, Floats b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
ATOM_ALWAYS_INLINE Floats operator/(Floats a, Floats b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
ATOM_ALWAYS_INLINE Floats fma(Floats a, Floats b, Floats c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
// c - a * b, rounded once.
ATOM_ALWAYS_INLINE Floats fnma(Floats a, Floats b, Floats c) {
  return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
// As std::min and std::max: the first operand where the comparison is false.
ATOM_ALWAYS_INLINE Floats min(Floats a, Floats b) {
  return {_mm256_min_ps(b.lo, a.lo), _mm256_min_ps(b.hi, a.hi)};
}
ATOM_ALWAYS_INLINE Floats max(Floats a, Floats b) {
  return {_mm256_max_ps(b.lo, a.lo), _mm256_max_ps(b.hi, a.hi)};
}
ATOM_ALWAYS_INLINE Floats round_even(Floats a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kMode), _mm256_round_ps(a.hi, kMode)};
}
ATOM_ALWAYS_INLINE Floats negate(Floats a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}
ATOM_ALWAYS_INLINE Floats to_float(Ints a) {
  return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}
ATOM_ALWAYS_INLINE Ints to_int(Floats a) {
  return {_mm256_cvttps_epi32(a.lo), _mm256_cvttps_epi32(a.hi)};
}
ATOM_ALWAYS_INLINE Floats as_float(Ints a) {
  return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)};
}
// The power of two of |a|, its mantissa cleared.
ATOM_ALWAYS_INLINE Floats power_of_two(Floats a) {
  const __m256 exponent = _mm256_castsi256_ps(_mm256_set1_epi32(0x7f800000));
  return {_mm256_and_ps(a.lo, exponent), _mm256_and_ps(a.hi, exponent)};
}

ATOM_ALWAYS_INLINE Ints operator+(Ints a, Ints b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
ATOM_ALWAYS_INLINE Ints operator-(Ints a, Ints b) {
  return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
}
ATOM_ALWAYS_INLINE Ints operator*(Ints a, Ints b) {
  return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)};
}
template <int kBits>
ATOM_ALWAYS_INLINE Ints shift_left(Ints a) {
  return {_mm256_slli_epi32(a.lo, kBits), _mm256_slli_epi32(a.hi, kBits)};
}
template <int kBits>
ATOM_ALWAYS_INLINE Ints shift_right(Ints a) {  // arithmetic
  return {_mm256_srai_epi32(a.lo, kBits), _mm256_srai_epi32(a.hi, kBits)};
}
// Lane i holds i.
ATOM_ALWAYS_INLINE Ints lane_index() {
  return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
          _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)};
}
// Lanes of a where lo <= i < hi holds for the lane's i, of b elsewhere.
ATOM_ALWAYS_INLINE Floats select_range(Ints i, int32_t lo, int32_t hi, Floats a, Floats b) {
  const __m256i below = _mm256_set1_epi32(lo), above = _mm256_set1_epi32(hi);
  const auto pick = [&](__m256i lane, __m256 x, __m256 y) {
    const __m256i inside =
        _mm256_andnot_si256(_mm256_cmpgt_epi32(below, lane), _mm256_cmpgt_epi32(above, lane));
    return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(inside));
  };
  return {pick(i.lo, a.lo, b.lo), pick(i.hi, a.hi, b.hi)};
}

// Lane i of the result is lane i ^ kStride.
template <int kStride>
ATOM_ALWAYS_INLINE Floats swap_lanes(Floats a) {
  if constexpr (kStride == 1) return {_mm256_permute_ps(a.lo, 0xb1), _mm256_permute_ps(a.hi, 0xb1)};
  if constexpr (kStride == 2) return {_mm256_permute_ps(a.lo, 0x4e), _mm256_permute_ps(a.hi, 0x4e)};
  if constexpr (kStride == 4) {
    return {_mm256_permute2f128_ps(a.lo, a.lo, 1), _mm256_permute2f128_ps(a.hi, a.hi, 1)};
  }
  if constexpr (kStride == 8) return {a.hi, a.lo};
}

ATOM_ALWAYS_INLINE __m128 fold(__m256 a, __m128 (*join)(__m128, __m128)) {
  const __m128 four = join(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 two = join(four, _mm_movehl_ps(four, four));
  return join(two, _mm_movehdup_ps(two));
}
// Adds lanes i and i + 8, then i + 4, i + 2, i + 1.
ATOM_ALWAYS_INLINE float sum_lanes(Floats a) {
  return _mm_cvtss_f32(
      fold(_mm256_add_ps(a.lo, a.hi), [](__m128 x, __m128 y) { return _mm_add_ps(x, y); }));
}
ATOM_ALWAYS_INLINE float min_lane(Floats a) {
  return _mm_cvtss_f32(
      fold(_mm256_min_ps(a.lo, a.hi), [](__m128 x, __m128 y) { return _mm_min_ps(x, y); }));
}
ATOM_ALWAYS_INLINE float max_lane(Floats a) {
  return _mm_cvtss_f32(
      fold(_mm256_max_ps(a.lo, a.hi), [](__m128 x, __m128 y) { return _mm_max_ps(x, y); }));
}
ATOM_ALWAYS_INLINE int32_t sum_lanes(Ints a) {
  const __m256i s8 = _mm256_add_epi32(a.lo, a.hi);
  const __m128i s4 = _mm_add_epi32(_mm256_castsi256_si128(s8), _mm256_extracti128_si256(s8, 1));
  const __m128i s2 = _mm_add_epi32(s4, _mm_shuffle_epi32(s4, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s2, _mm_shuffle_epi32(s2, 0xb1)));
}

struct Codes {
  __m256i lo, hi;
};
ATOM_ALWAYS_INLINE Codes load_codes(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
// Bits kShift .. kShift + kBits of the 32-bit word that a lane's four codes make.
template <int kShift, int kBits>
ATOM_ALWAYS_INLINE Ints code_bits(Codes c) {
  const __m256i mask = _mm256_set1_epi32((1 << kBits) - 1);
  return {_mm256_and_si256(_mm256_srli_epi32(c.lo, kShift), mask),
          _mm256_and_si256(_mm256_srli_epi32(c.hi, kShift), mask)};
}
// The four bits from kShift on of the same word, as floats.
template <int kShift>
ATOM_ALWAYS_INLINE Floats nibble_floats(Codes c) {
  return to_float(code_bits<kShift, 4>(c));
}
ATOM_ALWAYS_INLINE Codes low_nibbles(Codes c) {
  const __m256i mask = _mm256_set1_epi8(0xf);
  return {_mm256_and_si256(c.lo, mask), _mm256_and_si256(c.hi, mask)};
}
ATOM_ALWAYS_INLINE Codes high_nibbles(Codes c) {
  const __m256i mask = _mm256_set1_epi8(0xf);
  return {_mm256_and_si256(_mm256_srli_epi16(c.lo, 4), mask),
          _mm256_and_si256(_mm256_srli_epi16(c.hi, 4), mask)};
}

// e2m1_code + kE2M1ZeroPoint of the four bits that each byte is.
ATOM_ALWAYS_INLINE Codes e2m1_codes(Codes bits) {
  const __m256i table = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  return {_mm256_shuffle_epi8(table, bits.lo), _mm256_shuffle_epi8(table, bits.hi)};
}

ATOM_ALWAYS_INLINE __m256i broadcast_four(const int8_t* acts) {
  int32_t four;
  std::memcpy(&four, acts, sizeof four);
  return _mm256_set1_epi32(four);
}

#if defined(__AVXVNNI__)
struct ByteSum {
  __m256i lo, hi;
};
using NibbleSum = ByteSum;
template <class Sum>
ATOM_ALWAYS_INLINE Sum start_sum(int32_t x) {
  return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
// sum += the four codes of each lane times the four activations.
ATOM_ALWAYS_INLINE void dot(ByteSum& sum, Codes codes, const int8_t* acts) {
  const __m256i four = broadcast_four(acts);
  sum.lo = _mm256_dpbusd_avx_epi32(sum.lo, codes.lo, four);
  sum.hi = _mm256_dpbusd_avx_epi32(sum.hi, codes.hi, four);
}
ATOM_ALWAYS_INLINE Ints total(ByteSum sum) { return {sum.lo, sum.hi}; }
ATOM_ALWAYS_INLINE ByteSum operator+(ByteSum a, ByteSum b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
#else
struct NibbleSum {
  __m256i lo, hi;
};
// vpmaddubsw saturates where both codes of a pair are large, so bytes are widened to 16 bits; the
// two halves of a lane's four products stay apart until the end.
struct ByteSum {
  __m256i quarter[4];  // of four lanes each, two sums a lane
};
template <class Sum>
ATOM_ALWAYS_INLINE Sum start_sum(int32_t x) {
  if constexpr (sizeof(Sum) == sizeof(NibbleSum)) {
    return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
  } else {
    const __m256i half = _mm256_set_epi32(0, x, 0, x, 0, x, 0, x);
    return {{half, half, half, half}};
  }
}
ATOM_ALWAYS_INLINE void dot(NibbleSum& sum, Codes codes, const int8_t* acts) {
  const __m256i four = broadcast_four(acts), ones = _mm256_set1_epi16(1);
  // Pairs reach at most 2 * 24 * 128: no saturation.
  sum.lo = _mm256_add_epi32(sum.lo, _mm256_madd_epi16(_mm256_maddubs_epi16(codes.lo, four), ones));
  sum.hi = _mm256_add_epi32(sum.hi, _mm256_madd_epi16(_mm256_maddubs_epi16(codes.hi, four), ones));
}
ATOM_ALWAYS_INLINE void dot(ByteSum& sum, Codes codes, const int8_t* acts) {
  const __m256i wide = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(broadcast_four(acts)));
  const __m128i quarters[4] = {
      _mm256_castsi256_si128(codes.lo), _mm256_extracti128_si256(codes.lo, 1),
      _mm256_castsi256_si128(codes.hi), _mm256_extracti128_si256(codes.hi, 1)};
  for (int i = 0; i < 4; ++i) {
    const __m256i product = _mm256_madd_epi16(_mm256_cvtepu8_epi16(quarters[i]), wide);
    sum.quarter[i] = _mm256_add_epi32(sum.quarter[i], product);
  }
}
ATOM_ALWAYS_INLINE NibbleSum operator+(NibbleSum a, NibbleSum b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
ATOM_ALWAYS_INLINE ByteSum operator+(ByteSum a, ByteSum b) {
  for (int i = 0; i < 4; ++i) a.quarter[i] = _mm256_add_epi32(a.quarter[i], b.quarter[i]);
  return a;
}
ATOM_ALWAYS_INLINE Ints total(NibbleSum sum) { return {sum.lo, sum.hi}; }
ATOM_ALWAYS_INLINE Ints total(ByteSum sum) {
  // hadd leaves lanes 0 1 4 5 | 2 3 6 7.
  const __m256i lo = _mm256_hadd_epi32(sum.quarter[0], sum.quarter[1]);
  const __m256i hi = _mm256_hadd_epi32(sum.quarter[2], sum.quarter[3]);
  return {_mm256_permute4x64_epi64(lo, 0xd8), _mm256_permute4x64_epi64(hi, 0xd8)};
}
#endif

}  // namespace
}  // namespace atom::cpu
