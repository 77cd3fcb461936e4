// Row kernels: gather, normalise, SiLU, quantize. The operations are those of ops/numerics.h in
// their order, sixteen elements at a time, so that codes come out bit-identical.
#pragma once

#include <cstring>

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"
#include "ops/numerics.h"

namespace atom::cpu {
namespace {

// Calls body(i, n) for blocks of n <= 16 elements that cover [0, count).
template <class Body>
ATOM_ALWAYS_INLINE void for_blocks(int64_t count, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, kLanes);
  if (i < count) body(i, count - i);
}

ATOM_ALWAYS_INLINE Floats load_half_first(const uint16_t* p, int64_t n) {
  if (n == kLanes) return load_half(p);
  uint16_t some[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) some[i] = p[i];
  return load_half(some);
}

void expand_f16(const uint16_t* from, int64_t count, float* to) {
  for_blocks(count,
             [&](int64_t i, int64_t n) { store_first(to + i, load_half_first(from + i, n), n); });
}

void expand_bf16(const uint16_t* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
    std::memcpy(to + i, &bits, sizeof bits);
  }
}

template <int kTokens>
ATOM_ALWAYS_INLINE void float_row(const FloatRowsJob& job, int64_t token, int64_t row) {
  constexpr int64_t kChains = 4 / kTokens;  // sums that do not wait for one another
  const float* x = job.x + token * job.x_stride;
  const float* w = job.w + row * job.channels;
  Floats sums[kTokens][kChains];
  for (auto& token_sums : sums) {
    for (Floats& sum : token_sums) sum = splat(0.0f);
  }
  int64_t k = 0;
  for (; k + kChains * kLanes <= job.channels; k += kChains * kLanes) {
    for (int64_t c = 0; c < kChains; ++c) {
      const Floats weight = load(w + k + c * kLanes);
      for (int64_t t = 0; t < kTokens; ++t) {
        sums[t][c] = fma(load(x + t * job.x_stride + k + c * kLanes), weight, sums[t][c]);
      }
    }
  }
  for_blocks(job.channels - k, [&](int64_t i, int64_t n) {
    const Floats weight = load_first(w + k + i, n);
    for (int64_t t = 0; t < kTokens; ++t) {
      sums[t][0] = fma(load_first(x + t * job.x_stride + k + i, n), weight, sums[t][0]);
    }
  });
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t c = 1; c < kChains; ++c) sums[t][0] = sums[t][0] + sums[t][c];
    float& y = job.y[(token + t) * job.y_stride + row];
    y = job.accumulate ? y + sum_lanes(sums[t][0]) : sum_lanes(sums[t][0]);
  }
}

void float_rows(const FloatRowsJob& job) {
  for (int64_t row = 0; row < job.rows; ++row) {
    int64_t t = 0;
    for (; t + 4 <= job.tokens; t += 4) float_row<4>(job, t, row);
    for (; t < job.tokens; ++t) float_row<1>(job, t, row);
  }
}

void gather(const float* x, const int32_t* perm, int64_t count, float* y) {
  for_blocks(count, [&](int64_t i, int64_t n) {
    store_first(
        y + i, perm == nullptr ? load_first(x + i, n) : gather_first(x, load_first(perm + i, n), n),
        n);
  });
}

void normalize(const float* x, const float* weight, float factor, const int32_t* perm,
               int64_t count, float* y) {
  for_blocks(count, [&](int64_t i, int64_t n) {
    Floats value, scale;
    if (perm == nullptr) {
      value = load_first(x + i, n);
      scale = load_first(weight + i, n);
    } else {
      const Ints from = load_first(perm + i, n);
      value = gather_first(x, from, n);
      scale = gather_first(weight, from, n);
    }
    store_first(y + i, (value * splat(factor)) * scale, n);
  });
}

// numerics::exp.
ATOM_ALWAYS_INLINE Floats exponential(Floats x) {
  x = min(max(x, splat(-87.0f)), splat(88.0f));
  const Floats n = round_even(x * splat(1.44269504f));
  Floats r = fnma(n, splat(0.693359375f), x);
  r = fnma(n, splat(-2.12194440e-4f), r);
  Floats p = splat(1.3981999507e-3f);
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1.0f));
  p = fma(p, r, splat(1.0f));
  const Ints whole = to_int(n);
  const Ints half = shift_right<1>(whole);
  return p * as_float(shift_left<23>(half + splat(127))) *
         as_float(shift_left<23>(whole - half + splat(127)));
}

void silu_mul(const float* gate, const float* up, int64_t count, float* y) {
  for_blocks(count, [&](int64_t i, int64_t n) {
    const Floats g = load_first(gate + i, n);
    const Floats denominator = splat(1.0f) + exponential(negate(g));
    store_first(y + i, g / denominator * load_first(up + i, n), n);
  });
}

// numerics::round_code of a range.
template <CodeGrid kGrid>
struct Rounding {
  Floats inverse, low, high;

  ATOM_ALWAYS_INLINE explicit Rounding(const CodeRange& range)
      : inverse(splat(range.inverse)), low(splat(range.low)), high(splat(range.high)) {}
  ATOM_ALWAYS_INLINE Floats codes(Floats x) const {
    if constexpr (kGrid == CodeGrid::kE2M1) {
      const Floats place = min(max(low, x * inverse), high);
      const Floats rounder = max(power_of_two(place), splat(2.0f)) * splat(numerics::kE2M1Rounder);
      return (place + rounder) - rounder;
    } else {
      return min(max(low, round_even(x * inverse)), high);
    }
  }
};

// The squared error that a range leaves, in numerics::quantize_group's order of summation.
template <CodeGrid kGrid>
ATOM_ALWAYS_INLINE float squared_error(const QuantizeJob& job, const CodeRange& range) {
  const Rounding<kGrid> rounding(range);
  const Floats scale = splat(range.scale);
  Floats lanes = splat(0.0f);
  // Zeros past the end have code 0 and no error.
  for_blocks(job.n, [&](int64_t i, int64_t n) {
    const Floats x = load_first(job.x + i, n);
    const Floats miss = fnma(rounding.codes(x), scale, x);
    lanes = fma(miss, miss, lanes);
  });
  return sum_lanes(lanes);
}

// Smallest and largest of count >= 1 values.
ATOM_ALWAYS_INLINE void find_range(const float* x, int64_t count, float& low, float& high) {
  Floats least = splat(x[0]), most = least;
  for_blocks(count, [&](int64_t i, int64_t n) {
    const Floats values =
        select_range(lane_index(), 0, static_cast<int32_t>(n), load_first(x + i, n), splat(x[0]));
    least = min(least, values);
    most = max(most, values);
  });
  low = min_lane(least);
  high = max_lane(most);
}

float absmax(const float* x, int64_t n) {
  float low, high;
  find_range(x, n, low, high);
  return high > -low ? high : -low;
}

template <CodeGrid kGrid>
float quantize_group_on(const QuantizeJob& job) {
  float low_value, high_value;
  find_range(job.x, job.n, low_value, high_value);
  CodeRange best = activation_range(low_value, high_value, *job.format, 1.0f, job.unit);
  if (job.format->search && best.scale != 0.0f) {
    float best_error = 0.0f;
    bool first = true;
    for (const float clip : numerics::kSearchClips) {
      const CodeRange range = activation_range(low_value, high_value, *job.format, clip, job.unit);
      const float error = squared_error<kGrid>(job, range);
      if (first || error < best_error) {
        best_error = error;
        best = range;
      }
      first = false;
    }
  }
  // A zero scale comes with a zero reciprocal and range: all codes are 0.
  const Rounding<kGrid> rounding(best);
  for (int64_t start = 0; start < job.n; start += job.sum_group) {
    Ints sum = splat(0);
    for_blocks(job.sum_group, [&](int64_t i, int64_t n) {
      const Ints codes = to_int(rounding.codes(load_first(job.x + start + i, n)));
      sum = sum + codes;
      store_bytes_first(job.codes + start + i, codes, n);
    });
    job.sums[start / job.sum_group] = sum_lanes(sum);
  }
  return best.scale;
}

float quantize_group(const QuantizeJob& job) {
  return job.format->grid == CodeGrid::kE2M1 ? quantize_group_on<CodeGrid::kE2M1>(job)
                                             : quantize_group_on<CodeGrid::kInt>(job);
}

}  // namespace
}  // namespace atom::cpu
