// The float expressions behind the scales and codes of weights, which the quantizer on the host and
// those of devices share: one IEEE operation at a time, so that codes are the same where the
// weights are. docs/quantization.md, section 3, says the same in formulas.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "ops/numerics.h"

namespace atom::weight_grid {

// Candidates of a search for kGrouped: seven shares of the range, each with both signs.
inline constexpr int kGroupedCandidates = 14;
// For kTwoLevel: the whole range once, five shares of it with three zeros each.
inline constexpr int kTwoLevelCandidates = 16;
inline constexpr float kLargestF16 = 65504.0f;
inline constexpr float kSmallestF16 = 0x1p-24f;

// A candidate's scale before it is rounded to F16. sign +: the largest magnitude lands on the long
// side of the code range (-8); sign -: on +7's side, which clips it a little but uses a finer step
// for the rest. low: the smallest code. On kE2M1's grid, which has no long side, candidates of sign
// - are those of sign + again.
ATOM_HOST_DEVICE inline float grouped_scale(float min, float max, float low, int candidate) {
  constexpr float kShares[] = {1.0f, 0.95f, 0.9f, 0.85f, 0.8f, 0.75f, 0.7f};
  const float sign = candidate % 2 == 0 ? 1.0f : -1.0f;
  const float peak = max >= -min ? max : min;
  return -sign * peak * kShares[candidate / 2] / -low;
}

// What the largest magnitude is divided by under kAbsmax: the largest code. GPTQ moves weights
// after their scale was chosen, for which integers are given half a step.
ATOM_HOST_DEVICE inline float absmax_divisor(const WeightFormat& format, bool gptq) {
  const auto largest = static_cast<float>(largest_code(format.bits, format.grid));
  return gptq && format.grid == CodeGrid::kInt ? largest + 0.5f : largest;
}
// Of kAbsmax, before it is rounded to F16.
ATOM_HOST_DEVICE inline float absmax_scale(float min, float max, float clip, float divisor) {
  return std::max(max, -min) * clip / divisor;
}

// What `rounded` becomes, `scale` rounded to F16: a group that is not all zero keeps a scale.
ATOM_HOST_DEVICE inline float kept_scale(float scale, float rounded) {
  if (rounded == 0.0f && scale != 0.0f) return scale > 0 ? kSmallestF16 : -kSmallestF16;
  return rounded;
}

// The unit of a row's E4M3 scales from its body's largest magnitude: a power of two. The scale of
// that weight's group is then some 21 to 43 units, so that GPTQ may move weights and small groups
// keep their bits. Its limits make every product of an E4M3 number and a unit an F16 number.
inline constexpr float kLeastRowUnit = 0x1p-15f, kMostRowUnit = 0x1p7f;
ATOM_HOST_DEVICE inline float row_unit(float absmax) {
  const float power = std::bit_cast<float>(std::bit_cast<uint32_t>(absmax) & 0x7f800000u);
  const float least = kLeastRowUnit, most = kMostRowUnit;  // device code has no address of these
  return std::min(std::max(power * 0x1p-8f, least), most);
}
// What `scale` becomes under GroupScales::kE4M3.
ATOM_HOST_DEVICE inline float e4m3_scale(float scale, float unit) {
  const float most = numerics::kMostE4M3;
  const float rounded = numerics::nearest_e4m3(std::min(most, std::fabs(scale) * (1.0f / unit)));
  return (rounded == 0.0f && scale != 0.0f ? numerics::kLeastE4M3 : rounded) * unit;
}

// The integer scale and zero of a group of kTwoLevel, as floats. inverse_unit: 1 / row scale, or 0.
struct IntegerGrid {
  float scale = 1.0f, zero = 0.0f;
};
ATOM_HOST_DEVICE inline IntegerGrid two_level_grid(float min, float max, float inverse_unit,
                                                   int candidate) {
  constexpr float kShares[] = {1.0f, 0.92f, 0.84f, 0.76f, 0.68f, 0.6f};
  // Zeros tried: the range's middle on the codes' middle; its lower end on code 0; its upper end on
  // code 15.
  const float share = kShares[(candidate + 2) / 3];
  const int place = candidate == 0 ? 0 : (candidate - 1) % 3;
  const float low = min * inverse_unit, high = max * inverse_unit;
  const float exact = (high - low) / 15.0f;
  const float s =
      std::clamp(candidate == 0 ? std::ceil(exact) : std::rint(exact * share), 1.0f, 16.0f);
  const float z = place == 0   ? std::rint((low + high) / 2 - 7.5f * s)
                  : place == 1 ? std::rint(low)
                               : std::rint(high - 15 * s);
  return {s, std::clamp(z, -128.0f, 127 - 15 * s)};
}

// The scale of a row of kTwoLevel before it is rounded to F16. 119, not 127: rounding a group scale
// up must not leave int8.
ATOM_HOST_DEVICE inline float row_scale(float absmax) {
  const float largest = kLargestF16;  // device code has no address of the constant
  return std::min(absmax / 119.0f, largest);
}
// Of the INT8 outliers of a row, likewise.
ATOM_HOST_DEVICE inline float outlier_scale(float absmax) {
  const float largest = kLargestF16;
  return std::min(absmax / 127.0f, largest);
}

ATOM_HOST_DEVICE inline float weight_code(float w, float zero, float inverse, float low, float high,
                                          CodeGrid grid) {
  const float place = (w - zero) * inverse;
  if (grid == CodeGrid::kE2M1) {
    return numerics::nearest_e2m1(std::min(std::max(place, low), high));
  }
  return std::min(std::max(std::rint(place), low), high);
}
ATOM_HOST_DEVICE inline float outlier_code(float w, float scale) {
  return std::clamp(scale == 0.0f ? 0.0f : std::rint(w / scale), -127.0f, 127.0f);
}

}  // namespace atom::weight_grid
