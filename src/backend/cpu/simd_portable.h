// simd.h in plain C++.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace atom::cpu {
namespace {

inline constexpr int64_t kLanes = 16;

struct Floats {
  float v[kLanes];
};
struct Ints {
  int32_t v[kLanes];
};

template <class Vector, class Make>
ATOM_ALWAYS_INLINE Vector each(Make make) {
  Vector x;
  for (int64_t i = 0; i < kLanes; ++i) x.v[i] = make(i);
  return x;
}

ATOM_ALWAYS_INLINE Floats splat(float x) {
  return each<Floats>([&](int64_t) { return x; });
}
ATOM_ALWAYS_INLINE Ints splat(int32_t x) {
  return each<Ints>([&](int64_t) { return x; });
}
ATOM_ALWAYS_INLINE Floats load_first(const float* p, int64_t n) {
  return each<Floats>([&](int64_t i) { return i < n ? p[i] : 0.0f; });
}
ATOM_ALWAYS_INLINE Floats load(const float* p) { return load_first(p, kLanes); }
ATOM_ALWAYS_INLINE Floats load_half(const uint16_t* p) {
  return each<Floats>([&](int64_t i) { return f16_to_f32(p[i]); });
}
ATOM_ALWAYS_INLINE Ints load_first(const int32_t* p, int64_t n) {
  return each<Ints>([&](int64_t i) { return i < n ? p[i] : 0; });
}
ATOM_ALWAYS_INLINE Ints load(const int32_t* p) { return load_first(p, kLanes); }
ATOM_ALWAYS_INLINE Ints load_u8(const uint8_t* p) {
  return each<Ints>([&](int64_t i) { return p[i]; });
}
ATOM_ALWAYS_INLINE Ints load_s8(const int8_t* p) {
  return each<Ints>([&](int64_t i) { return p[i]; });
}
ATOM_ALWAYS_INLINE void store_first(float* p, const Floats& x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = x.v[i];
}
ATOM_ALWAYS_INLINE void store(float* p, const Floats& x) { store_first(p, x, kLanes); }
ATOM_ALWAYS_INLINE void store(int32_t* p, const Ints& x) {
  for (int64_t i = 0; i < kLanes; ++i) p[i] = x.v[i];
}
// The low byte of each of the first n lanes.
ATOM_ALWAYS_INLINE void store_bytes_first(int8_t* p, const Ints& x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = static_cast<int8_t>(x.v[i]);
}
// p[i] of the first n lanes' indices, 0 beyond.
ATOM_ALWAYS_INLINE Floats gather_first(const float* p, const Ints& at, int64_t n) {
  return each<Floats>([&](int64_t i) { return i < n ? p[at.v[i]] : 0.0f; });
}

ATOM_ALWAYS_INLINE Floats operator+(const Floats& a, const Floats& b) {
  return each<Floats>([&](int64_t i) { return a.v[i] + b.v[i]; });
}
ATOM_ALWAYS_INLINE Floats operator-(const Floats& a, const Floats& b) {
  return each<Floats>([&](int64_t i) { return a.v[i] - b.v[i]; });
}
ATOM_ALWAYS_INLINE Floats operator*(const Floats& a, const Floats& b) {
  return each<Floats>([&](int64_t i) { return a.v[i] * b.v[i]; });
}
ATOM_ALWAYS_INLINE Floats operator/(const Floats& a, const Floats& b) {
  return each<Floats>([&](int64_t i) { return a.v[i] / b.v[i]; });
}
ATOM_ALWAYS_INLINE Floats fma(const Floats& a, const Floats& b, const Floats& c) {
  return each<Floats>([&](int64_t i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
}
// c - a * b, rounded once.
ATOM_ALWAYS_INLINE Floats fnma(const Floats& a, const Floats& b, const Floats& c) {
  return each<Floats>([&](int64_t i) { return std::fma(-a.v[i], b.v[i], c.v[i]); });
}
// As std::min and std::max: the first operand where the comparison is false.
ATOM_ALWAYS_INLINE Floats min(const Floats& a, const Floats& b) {
  return each<Floats>([&](int64_t i) { return b.v[i] < a.v[i] ? b.v[i] : a.v[i]; });
}
ATOM_ALWAYS_INLINE Floats max(const Floats& a, const Floats& b) {
  return each<Floats>([&](int64_t i) { return a.v[i] < b.v[i] ? b.v[i] : a.v[i]; });
}
ATOM_ALWAYS_INLINE Floats round_even(const Floats& a) {
  return each<Floats>([&](int64_t i) { return std::rint(a.v[i]); });
}
ATOM_ALWAYS_INLINE Floats negate(const Floats& a) {
  return each<Floats>([&](int64_t i) { return -a.v[i]; });
}
ATOM_ALWAYS_INLINE Floats to_float(const Ints& a) {
  return each<Floats>([&](int64_t i) { return static_cast<float>(a.v[i]); });
}
ATOM_ALWAYS_INLINE Ints to_int(const Floats& a) {
  // What does not fit (an infinity or NaN that came in from outside) becomes 0, not undefined.
  return each<Ints>([&](int64_t i) {
    return a.v[i] >= -0x1p31f && a.v[i] < 0x1p31f ? static_cast<int32_t>(a.v[i]) : 0;
  });
}
ATOM_ALWAYS_INLINE Floats as_float(const Ints& a) {
  return each<Floats>([&](int64_t i) { return std::bit_cast<float>(a.v[i]); });
}

// The power of two of |a|, its mantissa cleared.
ATOM_ALWAYS_INLINE Floats power_of_two(const Floats& a) {
  return each<Floats>([&](int64_t i) {
    return std::bit_cast<float>(std::bit_cast<uint32_t>(a.v[i]) & 0x7f800000u);
  });
}

// Integer lanes wrap, as the machine's do.
ATOM_ALWAYS_INLINE int32_t wrap(uint32_t x) { return static_cast<int32_t>(x); }
ATOM_ALWAYS_INLINE Ints operator+(const Ints& a, const Ints& b) {
  return each<Ints>([&](int64_t i) {
    return wrap(static_cast<uint32_t>(a.v[i]) + static_cast<uint32_t>(b.v[i]));
  });
}
ATOM_ALWAYS_INLINE Ints operator-(const Ints& a, const Ints& b) {
  return each<Ints>([&](int64_t i) {
    return wrap(static_cast<uint32_t>(a.v[i]) - static_cast<uint32_t>(b.v[i]));
  });
}
ATOM_ALWAYS_INLINE Ints operator*(const Ints& a, const Ints& b) {
  return each<Ints>([&](int64_t i) {
    return wrap(static_cast<uint32_t>(a.v[i]) * static_cast<uint32_t>(b.v[i]));
  });
}
template <int kBits>
ATOM_ALWAYS_INLINE Ints shift_left(const Ints& a) {
  return each<Ints>([&](int64_t i) { return wrap(static_cast<uint32_t>(a.v[i]) << kBits); });
}
template <int kBits>
ATOM_ALWAYS_INLINE Ints shift_right(const Ints& a) {  // arithmetic
  return each<Ints>([&](int64_t i) { return a.v[i] >> kBits; });
}
// Lane i holds i.
ATOM_ALWAYS_INLINE Ints lane_index() {
  return each<Ints>([&](int64_t i) { return static_cast<int32_t>(i); });
}
// Lanes of a where lo <= i < hi holds for the lane's i, of b elsewhere.
ATOM_ALWAYS_INLINE Floats select_range(const Ints& at, int32_t lo, int32_t hi, const Floats& a,
                                       const Floats& b) {
  return each<Floats>([&](int64_t i) { return lo <= at.v[i] && at.v[i] < hi ? a.v[i] : b.v[i]; });
}

// Lane i of the result is lane i ^ kStride.
template <int kStride>
ATOM_ALWAYS_INLINE Floats swap_lanes(const Floats& a) {
  return each<Floats>([&](int64_t i) { return a.v[i ^ kStride]; });
}

// Adds lanes i and i + 8, then i + 4, i + 2, i + 1.
ATOM_ALWAYS_INLINE float sum_lanes(Floats a) {
  for (int64_t step = kLanes / 2; step > 0; step /= 2) {
    for (int64_t i = 0; i < step; ++i) a.v[i] += a.v[i + step];
  }
  return a.v[0];
}
ATOM_ALWAYS_INLINE float min_lane(const Floats& a) {
  float least = a.v[0];
  for (const float x : a.v) least = x < least ? x : least;
  return least;
}
ATOM_ALWAYS_INLINE float max_lane(const Floats& a) {
  float most = a.v[0];
  for (const float x : a.v) most = most < x ? x : most;
  return most;
}
ATOM_ALWAYS_INLINE int32_t sum_lanes(const Ints& a) {
  int32_t sum = 0;
  for (const int32_t x : a.v) sum += x;
  return sum;
}

struct Codes {
  uint8_t v[4 * kLanes];
};
ATOM_ALWAYS_INLINE Codes load_codes(const uint8_t* p) {
  Codes c;
  for (int64_t i = 0; i < 4 * kLanes; ++i) c.v[i] = p[i];
  return c;
}
// Bits kShift .. kShift + kBits of the 32-bit word that a lane's four codes make.
template <int kShift, int kBits>
ATOM_ALWAYS_INLINE Ints code_bits(const Codes& c) {
  return each<Ints>(
      [&](int64_t i) { return (c.v[4 * i + kShift / 8] >> (kShift % 8)) & ((1 << kBits) - 1); });
}
// The four bits from kShift on of the same word, as floats.
template <int kShift>
ATOM_ALWAYS_INLINE Floats nibble_floats(Codes c) {
  return to_float(code_bits<kShift, 4>(c));
}
ATOM_ALWAYS_INLINE Codes low_nibbles(Codes c) {
  for (uint8_t& x : c.v) x &= 0xf;
  return c;
}
ATOM_ALWAYS_INLINE Codes high_nibbles(Codes c) {
  for (uint8_t& x : c.v) x >>= 4;
  return c;
}

// e2m1_code + kE2M1ZeroPoint of the four bits that each byte is.
ATOM_ALWAYS_INLINE Codes e2m1_codes(Codes c) {
  constexpr uint8_t kTable[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
  for (uint8_t& x : c.v) x = kTable[x];
  return c;
}

struct ByteSum {
  Ints lanes;
};
using NibbleSum = ByteSum;
template <class Sum>
ATOM_ALWAYS_INLINE Sum start_sum(int32_t x) {
  return {splat(x)};
}
// sum += the four codes of each lane times the four activations.
ATOM_ALWAYS_INLINE void dot(ByteSum& sum, const Codes& codes, const int8_t* acts) {
  for (int64_t i = 0; i < kLanes; ++i) {
    const uint8_t* c = codes.v + 4 * i;
    const int32_t product = c[0] * acts[0] + c[1] * acts[1] + c[2] * acts[2] + c[3] * acts[3];
    sum.lanes.v[i] = wrap(static_cast<uint32_t>(sum.lanes.v[i]) + static_cast<uint32_t>(product));
  }
}
ATOM_ALWAYS_INLINE Ints total(const ByteSum& sum) { return sum.lanes; }
ATOM_ALWAYS_INLINE ByteSum operator+(const ByteSum& a, const ByteSum& b) {
  return {a.lanes + b.lanes};
}

}  // namespace
}  // namespace atom::cpu
