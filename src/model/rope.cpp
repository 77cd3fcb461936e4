#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"
#include "base/parallel.h"

namespace atom {
namespace {

constexpr double kTurn = 2.0 * std::numbers::pi;

// Long waves are stretched by the factor, short ones stay, those between are blended.
double llama3_frequency(double frequency, const RopeConfig& rope) {
  const auto context = static_cast<double>(rope.original_context);
  const double wavelength = kTurn / frequency;
  if (wavelength < context / rope.high_freq_factor) return frequency;
  if (wavelength > context / rope.low_freq_factor) return frequency / rope.factor;
  const double share = (context / wavelength - rope.low_freq_factor) /
                       (rope.high_freq_factor - rope.low_freq_factor);
  return (1.0 - share) * frequency / rope.factor + share * frequency;
}

// The pair index (not rounded) that turns `rotations` times over the original context.
double yarn_pair(double rotations, const RopeConfig& rope) {
  const auto context = static_cast<double>(rope.original_context);
  return static_cast<double>(rope.rotary_dim) * std::log(context / (rotations * kTurn)) /
         (2.0 * std::log(rope.theta));
}

// Pairs up to `low` keep their frequency, from `high` on it is divided by the factor; a linear ramp
// lies between.
double yarn_frequency(double frequency, int64_t pair, const RopeConfig& rope) {
  const double low = std::max(std::floor(yarn_pair(rope.beta_fast, rope)), 0.0);
  double high = std::min(std::ceil(yarn_pair(rope.beta_slow, rope)),
                         static_cast<double>(rope.rotary_dim - 1));
  if (low == high) high += 0.001;
  const double ramp = std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0);
  return ramp * frequency / rope.factor + (1.0 - ramp) * frequency;
}

}  // namespace

std::vector<double> rope_frequencies(const RopeConfig& rope) {
  const int64_t pairs = rope.rotary_dim / 2;
  ATOM_CHECK(rope.freq_factors.empty() || static_cast<int64_t>(rope.freq_factors.size()) == pairs,
             "one freq_factor a pair");
  std::vector<double> frequencies(static_cast<size_t>(pairs));
  for (int64_t i = 0; i < pairs; ++i) {
    double frequency =
        std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(rope.rotary_dim));
    switch (rope.scaling) {
      case RopeScaling::kNone:
        break;
      case RopeScaling::kLinear:
        frequency /= rope.factor;
        break;
      case RopeScaling::kLlama3:
        frequency = llama3_frequency(frequency, rope);
        break;
      case RopeScaling::kYarn:
        frequency = yarn_frequency(frequency, i, rope);
        break;
    }
    if (!rope.freq_factors.empty()) frequency /= rope.freq_factors[static_cast<size_t>(i)];
    frequencies[static_cast<size_t>(i)] = frequency;
  }
  return frequencies;
}

double rope_attention_factor(const RopeConfig& rope) {
  if (rope.scaling != RopeScaling::kYarn) return 1.0;
  if (rope.attention_factor > 0.0) return rope.attention_factor;
  return rope.factor <= 1.0 ? 1.0 : 0.1 * std::log(rope.factor) + 1.0;
}

std::vector<float> make_cos_sin(const RopeConfig& rope, int64_t positions) {
  const std::vector<double> frequencies = rope_frequencies(rope);
  const double factor = rope_attention_factor(rope);
  std::vector<float> table(static_cast<size_t>(positions) * frequencies.size() * 2);
  parallel_for(positions, [&](int64_t position) {
    float* entry = table.data() + static_cast<size_t>(position) * frequencies.size() * 2;
    for (const double frequency : frequencies) {
      const double angle = static_cast<double>(position) * frequency;
      *entry++ = static_cast<float>(std::cos(angle) * factor);
      *entry++ = static_cast<float>(std::sin(angle) * factor);
    }
  });
  return table;
}

}  // namespace atom
