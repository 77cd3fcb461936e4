// How a token is drawn from a row of logits, in integers, so that every backend and the sampler
// draw the same token from the same row, whatever the order in which they add (docs/engine.md,
// "Choosing tokens").
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "ops/numerics.h"

namespace atom {

// The weight of the largest logit; others are rounded down to whole numbers of such parts.
inline constexpr uint64_t kFullWeight = uint64_t{1} << 40;

// What a draw depends on besides the logits.
struct TokenDraw {
  float scale = 0;          // one over the temperature; 0: the argmax is taken
  int32_t top_k = 0;        // keep so many of the heaviest; 0: all
  uint64_t top_p = 0;       // keep the heaviest that reach this share, in 2^-64; 0: all
  uint64_t min_weight = 0;  // drop lighter ones, at most kFullWeight
  uint64_t random = 0;      // uniform
};

// exp(x) for x <= 0, by Cephes' range reduction and polynomial, to about 1e-7 of it; 0 below -87
// and for NaN. Each operation is rounded by itself.
ATOM_HOST_DEVICE inline float exp_nonpositive(float x) {
  constexpr float kLowest = -87.0f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds
  if (!(x > kLowest)) return 0.0f;
  const float n = (x * 1.44269504f + kRound) - kRound;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

// What ranks tokens, the first of equal ones before the others: at most 1, which the largest logit
// has; 0 for NaN. best: the largest logit, finite.
ATOM_HOST_DEVICE inline float relative_weight(float logit, float best, float scale) {
  return exp_nonpositive((logit - best) * scale);
}

// A relative weight in parts of kFullWeight.
ATOM_HOST_DEVICE inline uint64_t whole_weight(float relative) {
  return static_cast<uint64_t>(relative * static_cast<float>(kFullWeight));
}

// The upper half of a product: value * share for shares in 2^-64.
ATOM_HOST_DEVICE inline uint64_t share_of(uint64_t share, uint64_t value) {
#ifdef __CUDA_ARCH__
  return __umul64hi(share, value);
#else
  return static_cast<uint64_t>((static_cast<unsigned __int128>(share) * value) >> 64);
#endif
}

// The weight at which the heaviest tokens reach the share top_p of `all`.
ATOM_HOST_DEVICE inline uint64_t enough_weight(uint64_t top_p, uint64_t all) {
  return std::max(share_of(top_p, all), uint64_t{1});
}

}  // namespace atom
