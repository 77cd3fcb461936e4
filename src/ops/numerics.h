// The float expressions whose results are rounded to codes, one IEEE operation at a time. Backends
// may vectorise them but not reassociate them: that is what makes codes bit-identical everywhere.
// docs/quantization.md says the same in formulas.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>

#include "tensor/dtype.h"
#include "tensor/format_types.h"

// What device code calls as well; a compiler for it must be told not to contract.
#ifdef __CUDACC__
#define ATOM_HOST_DEVICE __host__ __device__
#else
#define ATOM_HOST_DEVICE
#endif

namespace atom::numerics {

// A group whose largest magnitude is below this counts as all zero: its reciprocal would overflow.
inline constexpr float kTiny = 0x1p-100f;
// Above this too, infinities included: its range or reciprocal could leave the normal floats. What
// code a NaN gets is not promised.
inline constexpr float kHuge = 0x1p120f;
// The clips that a searching quantizer tries on top of the format's own, in this order; the first
// of equals wins.
inline constexpr float kSearchClips[] = {1.0f, 0.95f, 0.9f, 0.85f, 0.8f};
// Partial sums of a search's squared error: element i goes to lane i % kErrorLanes.
inline constexpr int kErrorLanes = 16;
// A power of two times this has that power / 2 as its last bit.
inline constexpr float kE2M1Rounder = 0x1.8p22f;
// The same for E4M3, whose mantissa has three bits.
inline constexpr float kE4M3Rounder = 0x1.8p20f;
inline constexpr float kMostE4M3 = 448.0f, kLeastNormalE4M3 = 0x1p-6f, kLeastE4M3 = 0x1p-9f;
// Partial sums of RMSNorm's squares.
inline constexpr int kNormLanes = 2048;

// e^x by Cody-Waite reduction and a polynomial of degree 6; relative error below 2.4e-7 (3 ulp)
// over [-87, 88].
ATOM_HOST_DEVICE inline float exp(float x) {
  constexpr float kLog2E = 1.44269504f, kLn2Hi = 0.693359375f, kLn2Lo = -2.12194440e-4f;
  x = std::min(std::max(-87.0f, x), 88.0f);  // in this order a NaN becomes -87
  const float n = std::rint(x * kLog2E);
  float r = std::fma(n, -kLn2Hi, x);
  r = std::fma(n, -kLn2Lo, r);
  float p = 1.3981999507e-3f;  // about 1/720; minimax coefficients on [-ln2/2, ln2/2] below
  p = std::fma(p, r, 8.3334519073e-3f);
  p = std::fma(p, r, 4.1665795894e-2f);
  p = std::fma(p, r, 1.6666665459e-1f);
  p = std::fma(p, r, 0.5f);
  p = std::fma(p, r, 1.0f);
  p = std::fma(p, r, 1.0f);
  // p * 2^n in two factors, so that n = 127 and below -126 need no special case.
  const auto whole = static_cast<int32_t>(n);
  const int32_t half = whole >> 1;
  return p * std::bit_cast<float>((half + 127) << 23) *
         std::bit_cast<float>((whole - half + 127) << 23);
}

ATOM_HOST_DEVICE inline float silu_mul(float gate, float up) {
  return gate / (1.0f + exp(-gate)) * up;
}

// Adds kCount values pairwise: i and i + kCount / 2, then i + kCount / 4, ... i + 1.
template <int kCount>
float halving_sum(const float (&values)[kCount]) {
  float sums[kCount];
  std::copy(values, values + kCount, sums);
  for (int step = kCount / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) sums[i] += sums[i + step];
  }
  return sums[0];
}

// RMSNorm's factor 1 / sqrt(mean(x^2) + eps), in lanes that vector units and GPUs share out alike:
// the square of element i joins lane i % kNormLanes; then eight neighbours are added, then 32 of
// these sums, then the eight sums of that, each time by halves.
// The normalised value of channel i is (x[i] * factor) * weight[i].
inline float rms_factor(std::span<const float> x, float eps) {
  float lanes[kNormLanes / 256][32][8];
  float* lane = &lanes[0][0][0];
  const size_t used = std::min(x.size(), size_t{kNormLanes}), groups = (used + 255) / 256;
  for (size_t i = 0; i < used; ++i) lane[i] = x[i] * x[i];
  std::fill(lane + used, lane + 256 * groups, 0.0f);
  for (size_t first = kNormLanes; first < x.size(); first += kNormLanes) {
    const size_t count = std::min(x.size() - first, size_t{kNormLanes});
    for (size_t i = 0; i < count; ++i) lane[i] += x[first + i] * x[first + i];
  }
  float sums[kNormLanes / 256] = {};
  for (size_t w = 0; w < groups; ++w) {
    float eights[32];
    for (int t = 0; t < 32; ++t) eights[t] = halving_sum(lanes[w][t]);
    sums[w] = halving_sum(eights);
  }
  return 1.0f / std::sqrt(halving_sum(sums) * (1.0f / static_cast<float>(x.size())) + eps);
}

// Rotates the pair (a, b) by the angle whose cosine and sine are given.
ATOM_HOST_DEVICE inline void rotate_pair(float& a, float& b, float cos, float sin) {
  const float a2 = std::fma(a, cos, -(b * sin));
  b = std::fma(b, cos, a * sin);
  a = a2;
}

// x := H x / sqrt(n), H the Hadamard matrix in natural (Sylvester) order, n a power of two:
// butterflies of stride 1, 2, 4 ... and one product at the end.
inline void hadamard(std::span<float> x) {
  const size_t n = x.size();
  for (size_t stride = 1; stride < n; stride *= 2) {
    for (size_t i = 0; i < n; ++i) {
      if ((i & stride) != 0) continue;
      const float a = x[i], b = x[i + stride];
      x[i] = a + b;
      x[i + stride] = a - b;
    }
  }
  const auto factor = static_cast<float>(1.0 / std::sqrt(static_cast<double>(n)));
  for (float& v : x) v *= factor;
}

// The code of CodeGrid::kE2M1 nearest to x, |x| <= 12; of two equally near, the one whose mantissa
// is even: 2.5 is 2, 3.5 and 5 are 4, 7 and 10 are 8.
ATOM_HOST_DEVICE inline float nearest_e2m1(float x) {
  // Codes are the integers up to 2, and from there on the numbers of two leading bits. Adding a
  // number whose last bit is the second of these rounds to them.
  const float power = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0x7f800000u);
  const float rounder = std::max(power, 2.0f) * kE2M1Rounder;
  return (x + rounder) - rounder;
}

// The E4M3 number nearest to x, 0 <= x <= 448, ties to even mantissas.
ATOM_HOST_DEVICE inline float nearest_e4m3(float x) {
  const float power = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0x7f800000u);
  const float least = kLeastNormalE4M3;  // device code has no address of the constant
  const float rounder = std::max(power, least) * kE4M3Rounder;
  return (x + rounder) - rounder;
}

// The unit of a token's E4M3 scales, a power of two, from the largest magnitude of its body: the
// scale of that number's group is 170 to 342 units, less what it is clipped.
ATOM_HOST_DEVICE inline float scale_unit(float absmax) {
  const float tiny = kTiny, huge = kHuge;
  const float limited = std::min(std::max(tiny, absmax), huge);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(limited) & 0x7f800000u) * 0x1p-11f;
}

struct GroupScale {
  float scale = 0.0f;     // 0: all codes are 0
  float inverse = 0.0f;   // 1 / scale
  int low = 0, high = 0;  // code range
  CodeGrid grid = CodeGrid::kInt;
};

// The scale and code range of one activation group from its smallest and largest value. unit: of
// GroupScales::kE4M3, else 0.
ATOM_HOST_DEVICE inline GroupScale group_scale(float min, float max, int bits, ActRule rule,
                                               float clip, CodeGrid grid = CodeGrid::kInt,
                                               float unit = 0.0f) {
  const int top = largest_code(bits, grid);
  const float absmax = std::max(max, -min);
  if (!(absmax >= kTiny && absmax <= kHuge)) return {};
  GroupScale result;
  result.grid = grid;
  switch (rule) {
    case ActRule::kSymmetric:
      result.scale = absmax * (clip / static_cast<float>(top));
      if (unit != 0.0f) {
        result.scale = nearest_e4m3(result.scale * (1.0f / unit)) * unit;
        if (result.scale == 0.0f) return {};
      }
      result.low = smallest_code(bits, grid);
      result.high = top;
      break;
    case ActRule::kSigned:
      result.scale = (max >= -min ? max : min) * (-clip / static_cast<float>(top + 1));
      result.low = -top - 1;
      result.high = top;
      break;
    case ActRule::kAsymmetric: {
      // The range is widened to hold 0, so that the zero point is a code and q - zero fits int8.
      const int levels = 2 * top + 1;
      const float low = std::min(min, 0.0f), high = std::max(max, 0.0f);
      result.scale = (high - low) * (clip / static_cast<float>(levels));
      result.inverse = 1.0f / result.scale;
      const int zero = static_cast<int>(std::rint(-(low * clip) * result.inverse));
      result.low = -zero;
      result.high = levels - zero;
      return result;
    }
  }
  result.inverse = 1.0f / result.scale;
  return result;
}

ATOM_HOST_DEVICE inline int round_code(float value, const GroupScale& g) {
  const float low = static_cast<float>(g.low), high = static_cast<float>(g.high);
  // max(low, NaN) is low here and in every vector unit that returns its other operand then.
  if (g.grid == CodeGrid::kE2M1) {
    return static_cast<int>(nearest_e2m1(std::min(std::max(low, value * g.inverse), high)));
  }
  return static_cast<int>(std::min(std::max(low, std::rint(value * g.inverse)), high));
}

// Quantizes one activation group: codes and the scale; value = code * scale. unit: as
// group_scale's.
inline float quantize_group(std::span<const float> x, const ActFormat& format, int8_t* codes,
                            float unit = 0.0f) {
  float min = x[0], max = x[0];
  for (const float v : x) {
    min = std::min(min, v);
    max = std::max(max, v);
  }
  GroupScale best = group_scale(min, max, format.bits, format.rule, format.clip, format.grid, unit);
  if (format.search && best.scale != 0.0f) {
    float best_error = 0.0f;
    for (size_t c = 0; c < std::size(kSearchClips); ++c) {
      const GroupScale g = group_scale(min, max, format.bits, format.rule,
                                       format.clip * kSearchClips[c], format.grid, unit);
      float lanes[kErrorLanes] = {};
      for (size_t i = 0; i < x.size(); ++i) {
        const float miss = std::fma(-static_cast<float>(round_code(x[i], g)), g.scale, x[i]);
        lanes[i % kErrorLanes] = std::fma(miss, miss, lanes[i % kErrorLanes]);
      }
      for (int step = kErrorLanes / 2; step > 0; step /= 2) {
        for (int i = 0; i < step; ++i) lanes[i] += lanes[i + step];
      }
      if (c == 0 || lanes[0] < best_error) {
        best_error = lanes[0];
        best = g;
      }
    }
  }
  for (size_t i = 0; i < x.size(); ++i) {
    codes[i] = static_cast<int8_t>(best.scale == 0.0f ? 0 : round_code(x[i], best));
  }
  return best.scale;
}

// scale_unit() of a token's body where its format's scales are E4M3, else 0.
inline float token_unit(std::span<const float> body, const ActFormat& format) {
  if (format.scales != GroupScales::kE4M3) return 0.0f;
  float absmax = 0.0f;
  for (const float v : body) absmax = std::max(absmax, std::fabs(v));
  return scale_unit(absmax);
}

// The INT8 outlier channels of one token: symmetric, one scale, no clip.
inline constexpr ActFormat kOutlierActs = {.quantized = true, .bits = 8, .group = 0};

// One K or V vector: asymmetric codes 0 .. 2^bits - 1 under an F16 scale and an F16 minimum, which
// are rounded before the codes are chosen; value = minimum + code * scale.
struct KvScale {
  uint16_t scale = 0;  // F16
  uint16_t min = 0;    // F16
};
// Both before they are rounded to F16, so that device code can round them with its own
// instructions.
struct KvRange {
  float scale = 0.0f, min = 0.0f;
};
ATOM_HOST_DEVICE inline KvRange kv_range(float min, float max, int bits) {
  constexpr float kLargestF16 = 65504.0f;
  const float levels = static_cast<float>((1 << bits) - 1);
  min = std::max(min, -kLargestF16);
  return {.scale = std::min((max - min) * (1.0f / levels), kLargestF16),
          .min = std::min(min, kLargestF16)};
}
inline KvScale kv_scale(float min, float max, int bits) {
  const KvRange range = kv_range(min, max, bits);
  return {.scale = f32_to_f16(range.scale), .min = f32_to_f16(range.min)};
}
ATOM_HOST_DEVICE inline int kv_code(float x, float base, float inverse, int bits) {
  const float levels = static_cast<float>((1 << bits) - 1);
  const float code = std::max(0.0f, std::rint((x - base) * inverse));
  return static_cast<int>(std::min(code, levels));
}
inline KvScale quantize_kv(std::span<const float> x, int bits, uint8_t* codes) {
  float min = x[0], max = x[0];
  for (const float v : x) {
    min = std::min(min, v);
    max = std::max(max, v);
  }
  const KvScale result = kv_scale(min, max, bits);
  const float scale = f16_to_f32(result.scale), base = f16_to_f32(result.min);
  const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
  for (size_t i = 0; i < x.size(); ++i) {
    codes[i] = static_cast<uint8_t>(kv_code(x[i], base, inverse, bits));
  }
  return result;
}

}  // namespace atom::numerics
