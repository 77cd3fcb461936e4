// Random problems of NVFP4 for the GEMM tests.
#pragma once

#include <cmath>
#include <cstdint>
#include <iterator>
#include <vector>

#include "cuda/gemm_cases.h"
#include "tensor/quantized_linear.h"

namespace atom::cuda {

// Powers of two, another for each of a few tokens.
inline float unit_of(int64_t token) { return std::ldexp(1.0f, -6 - static_cast<int>(token % 5)); }

// Grouped weights and activations of E2M1, all of whose scales are E4M3, the largest and the least
// among them.
inline PackedLinear random_nvfp4(int64_t rows, int64_t body, int64_t outliers, int64_t group,
                                 uint64_t seed, bool bias) {
  PackedLinear p = random_fp4(rows, body, outliers, group, seed, bias);
  Random random(seed + 2);
  p.format.weight.scales = p.format.act.scales = GroupScales::kE4M3;
  for (uint16_t& scale : p.scales) {
    p.group_scales.push_back(static_cast<uint8_t>(random.below(kMostE4M3Bits + 1)));
    scale = 0;
  }
  for (int64_t n = 0; n < rows; ++n) {
    p.row_scales.push_back(f32_to_f16(std::ldexp(1.0f, -15 + static_cast<int>(n % 4))));
  }
  p.scales.clear();
  return p;
}
// Scales of E4M3 times a token's unit.
inline void make_scales_e4m3(PlainActivations& x, uint64_t seed) {
  Random random(seed);
  for (int64_t i = 0; i < std::ssize(x.scales); ++i) {
    x.scales[static_cast<size_t>(i)] =
        e4m3_value(static_cast<uint8_t>(random.below(kMostE4M3Bits + 1))) * unit_of(i / x.groups);
  }
}
// Of the tokens, NaN where none is.
inline std::vector<float> lay_out_units(const PlainActivations& x, int64_t capacity) {
  std::vector<float> units(static_cast<size_t>(capacity), NAN);
  for (int64_t t = 0; t < x.tokens; ++t) units[static_cast<size_t>(t)] = unit_of(t);
  return units;
}

}  // namespace atom::cuda
