#include "ops/logits.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/multiversion.h"
#include "ops/argmax.h"
#include "ops/token_draw.h"

namespace atom {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr int64_t kLanes = 16;

// Elementwise arithmetic on 16 floats, in whatever registers the machine has.
using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using Ints = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));
using Longs = uint64_t __attribute__((vector_size(kLanes * sizeof(uint64_t))));

#define ATOM_INLINE __attribute__((always_inline)) inline

ATOM_INLINE void load(const float* from, Floats& to) { __builtin_memcpy(&to, from, sizeof to); }

// The elements [i, end), at most kLanes of them; minus infinity behind them.
ATOM_INLINE void load_some(const float* from, int64_t i, int64_t end, Floats& to) {
  if (i + kLanes <= end) return load(from + i, to);
  to = Floats{} + kLowest;
  for (int64_t lane = 0; i + lane < end; ++lane) to[lane] = from[i + lane];
}

// exp_nonpositive() of each lane, in place.
ATOM_INLINE void exponential(Floats& x) {
  constexpr float kLowest = -87.0f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds
  const Floats lowest = Floats{} + kLowest;
  const Floats in_range = x > lowest ? x : lowest;  // NaN too becomes the lowest
  const Floats n = (in_range * 1.44269504f + kRound) - kRound;
  const Floats r = (in_range - n * 0.693359375f) - n * -2.12194440e-4f;
  Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Ints exponent = (__builtin_convertvector(n, Ints) + 127) << 23;
  Floats power;
  __builtin_memcpy(&power, &exponent, sizeof power);
  x = x > lowest ? p * power : Floats{};
}

// whole_weight() of each lane, by shifts: few machines convert to such integers in lanes.
ATOM_INLINE void whole_weights(const Floats& relative, Longs& whole) {
  constexpr int32_t kExponentOfOne = 127, kFractionBits = 23, kMostShift = 63;
  Ints bits;
  __builtin_memcpy(&bits, &relative, sizeof bits);
  const Ints below_one = kExponentOfOne - (bits >> kFractionBits);
  const Ints shift = below_one < kMostShift ? below_one : Ints{} + kMostShift;
  const Ints mantissa = (bits & ((1 << kFractionBits) - 1)) | 1 << kFractionBits;
  static_assert(kFullWeight == uint64_t{1} << (kFractionBits + 17));
  whole = (__builtin_convertvector(mantissa, Longs) << 17) >> __builtin_convertvector(shift, Longs);
}

// The largest logit of each block. The last block may be short.
ATOM_MULTIVERSION void block_maxima(const float* logits, int64_t count, float* maxima) {
  for (int64_t begin = 0; begin < count; begin += kLogitBlock) {
    const int64_t end = std::min(begin + kLogitBlock, count);
    Floats most = Floats{} + kLowest;
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      Floats x;
      load(logits + i, x);
      most = x > most ? x : most;
    }
    float best = kLowest;
    for (int64_t lane = 0; lane < kLanes; ++lane) best = most[lane] > best ? most[lane] : best;
    for (; i < end; ++i) best = logits[i] > best ? logits[i] : best;
    maxima[begin / kLogitBlock] = best;
  }
}

// Sums of a block are in float, lane by lane, then the lanes in order; the rest is double.
ATOM_MULTIVERSION double exponentials(const float* logits, int64_t count, float shift,
                                      float scale) {
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kLogitBlock) {
    const int64_t end = std::min(begin + kLogitBlock, count);
    Floats sums = {};
    for (int64_t i = begin; i < end; i += kLanes) {
      Floats x;
      load_some(logits, i, end, x);
      x = (x - shift) * scale;
      exponential(x);
      sums += x;
    }
    float sum = 0;
    for (int64_t lane = 0; lane < kLanes; ++lane) sum += sums[lane];
    total += static_cast<double>(sum);
  }
  return total;
}

ATOM_MULTIVERSION uint64_t weigh(const float* logits, int64_t count, float best, float scale,
                                 float least, float* weights, uint64_t* block_sums) {
  uint64_t total = 0;
  for (int64_t begin = 0; begin < count; begin += kLogitBlock) {
    const int64_t end = std::min(begin + kLogitBlock, count);
    Longs sums = {};
    for (int64_t i = begin; i < end; i += kLanes) {
      Floats x;
      load_some(logits, i, end, x);
      x = (x - best) * scale;
      exponential(x);
      if (i + kLanes <= end) {
        __builtin_memcpy(weights + i, &x, sizeof x);
      } else {
        for (int64_t lane = 0; i + lane < end; ++lane) weights[i + lane] = x[lane];
      }
      x = x >= least ? x : Floats{};
      Longs whole;
      whole_weights(x, whole);
      sums += whole;
    }
    uint64_t sum = 0;
    for (int64_t lane = 0; lane < kLanes; ++lane) sum += sums[lane];
    total += sum;
    block_sums[begin / kLogitBlock] = sum;
  }
  return total;
}

#undef ATOM_INLINE

int64_t block_count(std::span<const float> logits) {
  return (static_cast<int64_t>(logits.size()) + kLogitBlock - 1) / kLogitBlock;
}

float or_none(float logit) { return std::isnan(logit) ? kLowest : logit; }

}  // namespace

RankedToken best_token(std::span<const float> logits) {
  const int32_t best = argmax(logits);
  return {or_none(logits[static_cast<size_t>(best)]), best};
}

std::span<const RankedToken> TokenRanking::best(std::span<const float> logits, int64_t count) {
  const int64_t blocks = block_count(logits);
  count = std::min(count, static_cast<int64_t>(logits.size()));
  candidates_.clear();
  float threshold = kLowest;
  if (count < blocks) {
    // At least `count` logits reach the count-th largest of the blocks' maxima.
    maxima_.resize(static_cast<size_t>(blocks));
    block_maxima(logits.data(), static_cast<int64_t>(logits.size()), maxima_.data());
    ordered_ = maxima_;
    const auto nth = ordered_.begin() + (count - 1);
    std::nth_element(ordered_.begin(), nth, ordered_.end(), std::greater<>());
    threshold = *nth;
  }
  for (int64_t block = 0; block < blocks; ++block) {
    if (threshold > kLowest && maxima_[static_cast<size_t>(block)] < threshold) continue;
    const auto begin = static_cast<size_t>(block * kLogitBlock);
    const size_t end = std::min(begin + static_cast<size_t>(kLogitBlock), logits.size());
    for (size_t i = begin; i < end; ++i) {
      const float logit = or_none(logits[i]);
      if (logit >= threshold) candidates_.push_back({logit, static_cast<int32_t>(i)});
    }
  }
  if (static_cast<int64_t>(candidates_.size()) > count) {
    std::nth_element(candidates_.begin(), candidates_.begin() + count, candidates_.end(),
                     ranks_before);
    candidates_.resize(static_cast<size_t>(count));
  }
  std::sort(candidates_.begin(), candidates_.end(), ranks_before);
  return candidates_;
}

double sum_of_exponentials(std::span<const float> logits, float shift, float scale) {
  return exponentials(logits.data(), static_cast<int64_t>(logits.size()), shift, scale);
}

uint64_t weigh_tokens(std::span<const float> logits, float best, float scale, uint64_t least,
                      std::vector<float>& weights, std::vector<uint64_t>& block_sums) {
  // The least relative weight whose whole weight is no less.
  auto least_relative = static_cast<float>(least);
  if (static_cast<uint64_t>(least_relative) < least) {
    least_relative = std::nextafter(least_relative, static_cast<float>(2 * kFullWeight));
  }
  least_relative /= static_cast<float>(kFullWeight);
  weights.resize(logits.size());
  block_sums.resize(static_cast<size_t>(block_count(logits)));
  return weigh(logits.data(), static_cast<int64_t>(logits.size()), best, scale, least_relative,
               weights.data(), block_sums.data());
}

}  // namespace atom
