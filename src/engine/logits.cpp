#include "engine/logits.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/multiversion.h"
#include "ops/argmax.h"

namespace atom {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr int64_t kLanes = 16;

// Elementwise arithmetic on 16 floats, in whatever registers the machine has.
using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using Ints = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));

#define ATOM_INLINE __attribute__((always_inline)) inline

ATOM_INLINE void load(const float* from, Floats& to) { __builtin_memcpy(&to, from, sizeof to); }

// Range reduction and polynomial of Cephes' expf, in place.
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
ATOM_MULTIVERSION double exponentials(const float* logits, int64_t count, float shift, float scale,
                                      double* block_sums) {
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kLogitBlock) {
    const int64_t end = std::min(begin + kLogitBlock, count);
    Floats sums = {};
    for (int64_t i = begin; i < end; i += kLanes) {
      Floats x = Floats{} + kLowest;
      if (i + kLanes <= end) {
        load(logits + i, x);
      } else {
        for (int64_t lane = 0; i + lane < end; ++lane) x[lane] = logits[i + lane];
      }
      x = (x - shift) * scale;
      exponential(x);
      sums += x;
    }
    float sum = 0;
    for (int64_t lane = 0; lane < kLanes; ++lane) sum += sums[lane];
    total += static_cast<double>(sum);
    if (block_sums != nullptr) block_sums[begin / kLogitBlock] = static_cast<double>(sum);
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

float exp_nonpositive(float x) {
  Floats lanes = Floats{} + x;
  exponential(lanes);
  return lanes[0];
}

double sum_of_exponentials(std::span<const float> logits, float shift, float scale,
                           std::vector<double>* block_sums) {
  double* sums = nullptr;
  if (block_sums != nullptr) {
    block_sums->resize(static_cast<size_t>(block_count(logits)));
    sums = block_sums->data();
  }
  return exponentials(logits.data(), static_cast<int64_t>(logits.size()), shift, scale, sums);
}

}  // namespace atom
