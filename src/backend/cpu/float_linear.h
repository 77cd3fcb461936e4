// Float matrix products through OpenBLAS (our own dot products for a few tokens), cut into tiles
// whose shape does not depend on the number of threads, so that results do not either.
#pragma once

#include <cstdint>
#include <functional>

#include "backend/cpu/kernels.h"

namespace atom::cpu {

// y[t, n] (+)= sum_k x[t, k] * w[n, k] for T tokens and N rows. expand(n, count, to) writes `count`
// rows of w from row n on, [count, K], to `to`, or returns where they stand already.
struct FloatProduct {
  const float* x = nullptr;
  int64_t x_stride = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
  int64_t tokens = 0, rows = 0, channels = 0;
  bool accumulate = false;
};
using ExpandRows = std::function<const float*(int64_t row, int64_t count, float* to)>;
void float_linear(const Kernels& kernels, const FloatProduct& product, const ExpandRows& expand);

// h += X^T X over `tokens` rows of x [T, K]; h [K, K], both triangles.
void accumulate_gram(const float* x, int64_t tokens, int64_t channels, float* h);

}  // namespace atom::cpu
