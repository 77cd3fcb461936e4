// Random problems for the GEMM tests, and the integer reference: exact sums on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/cuda/gemm/pack_weights.h"
#include "base/random.h"
#include "tensor/packed_linear.h"
#include "tensor/packing.h"

namespace atom::cuda {

// Quantized activations as the kernels' inputs stand for them, in plain rows.
struct PlainActivations {
  int64_t tokens = 0, cols = 0, outliers = 0;
  std::vector<int8_t> codes;          // [tokens, cols], outliers last
  std::vector<float> scales;          // [tokens]
  std::vector<float> outlier_scales;  // [tokens]
};

inline PackedLinear random_two_level(int64_t rows, int64_t body, int64_t outliers, int64_t group,
                                     uint64_t seed, bool bias = false) {
  Random random(seed);
  PackedLinear p;
  p.rows = rows;
  p.cols = body + outliers;
  p.format.weight = {.kind = WeightKind::kTwoLevel,
                     .bits = 4,
                     .group = group,
                     .outliers = outliers,
                     .outlier_kind = outliers > 0 ? OutlierKind::kInt8 : OutlierKind::kNone};
  p.format.act = {.quantized = true, .bits = 8, .group = 0};
  p.codes.resize(static_cast<size_t>(rows * body / 2));
  for (auto& c : p.codes) c = static_cast<uint8_t>(random.below(256));
  const int64_t groups = group == 0 ? 1 : body / group;
  for (int64_t i = 0; i < rows * groups; ++i) {
    const auto s = static_cast<int>(1 + random.below(16));
    p.group_scales.push_back(static_cast<uint8_t>(s));
    // Any zero that keeps q*s + z within int8, both ends included.
    p.group_zeros.push_back(static_cast<int8_t>(-128 + random.below(256 - 15 * s)));
  }
  for (int64_t n = 0; n < rows; ++n) {
    p.row_scales.push_back(f32_to_f16(static_cast<float>(1e-3 * (0.5 + random.uniform()))));
    if (bias) p.bias.push_back(static_cast<float>(random.normal()));
  }
  p.outlier_codes.resize(static_cast<size_t>(rows * outliers));
  for (auto& c : p.outlier_codes) c = static_cast<int8_t>(random.below(255) - 127);
  return p;
}

inline PlainActivations random_activations(int64_t tokens, int64_t body, int64_t outliers,
                                           uint64_t seed) {
  Random random(seed);
  PlainActivations x{.tokens = tokens,
                     .cols = body + outliers,
                     .outliers = outliers,
                     .codes = {},
                     .scales = {},
                     .outlier_scales = {}};
  x.codes.resize(static_cast<size_t>(tokens * x.cols));
  for (auto& c : x.codes) c = static_cast<int8_t>(random.below(255) - 127);
  for (int64_t t = 0; t < tokens; ++t) {
    x.scales.push_back(static_cast<float>(0.01 * (0.5 + random.uniform())));
    x.outlier_scales.push_back(static_cast<float>(0.1 * (0.5 + random.uniform())));
  }
  return x;
}

// In the kernels' layout; what no code covers is filled with garbage, which must not matter beyond
// the padding of a block (that is zero, as the quantizers write it).
inline std::vector<int8_t> lay_out(const PlainActivations& x, const w4a8::Shape& shape,
                                   int64_t capacity) {
  std::vector<int8_t> out(static_cast<size_t>(shape.act_blocks() * capacity * w4a8::kActBlockBytes),
                          77);
  const int64_t body = x.cols - x.outliers;
  for (int64_t t = 0; t < x.tokens; ++t) {
    for (int64_t b = 0; b < shape.act_blocks(); ++b) {
      for (int64_t k = 0; k < w4a8::kBlockCols; ++k) {
        const bool in_body = b < shape.body_blocks;
        const int64_t at = (in_body ? b : b - shape.body_blocks) * w4a8::kBlockCols + k;
        const bool real = at < (in_body ? body : x.outliers);
        out[static_cast<size_t>(w4a8::activation_offset(b, t, k, capacity))] =
            real ? x.codes[static_cast<size_t>(t * x.cols + at + (in_body ? 0 : body))] : int8_t{0};
      }
    }
  }
  return out;
}

// Sums of the body codes of each token, [capacity]; garbage behind the tokens.
inline std::vector<int32_t> body_sums(const PlainActivations& x, int64_t capacity) {
  std::vector<int32_t> sums(static_cast<size_t>(capacity), 12345);
  for (int64_t t = 0; t < x.tokens; ++t) {
    int32_t sum = 0;
    for (int64_t k = 0; k < x.cols - x.outliers; ++k) {
      sum += x.codes[static_cast<size_t>(t * x.cols + k)];
    }
    sums[static_cast<size_t>(t)] = sum;
  }
  return sums;
}

// y [tokens, rows] from exact integer sums, in double.
inline std::vector<double> reference(const PackedLinear& p, const PlainActivations& x) {
  const int64_t body = p.body(), groups = p.groups(), outliers = p.format.weight.outliers;
  const int64_t group = p.format.weight.group == 0 ? body : p.format.weight.group;
  std::vector<double> y(static_cast<size_t>(x.tokens * p.rows));
#pragma omp parallel for
  for (int64_t n = 0; n < p.rows; ++n) {
    std::vector<int32_t> w(static_cast<size_t>(p.cols));
    for (int64_t k = 0; k < body; ++k) {
      const auto g = static_cast<size_t>(n * groups + k / group);
      w[static_cast<size_t>(k)] =
          unsigned_nibble(p.codes.data() + n * (body / 2), k) * p.group_scales[g] +
          p.group_zeros[g];
    }
    for (int64_t k = 0; k < outliers; ++k) {
      w[static_cast<size_t>(body + k)] = p.outlier_codes[static_cast<size_t>(n * outliers + k)];
    }
    for (int64_t t = 0; t < x.tokens; ++t) {
      const int8_t* row = x.codes.data() + t * p.cols;
      int64_t sum = 0, tail = 0;
      for (int64_t k = 0; k < body; ++k) sum += w[static_cast<size_t>(k)] * row[k];
      for (int64_t k = body; k < p.cols; ++k) tail += w[static_cast<size_t>(k)] * row[k];
      const auto i = static_cast<size_t>(t);
      y[i * static_cast<size_t>(p.rows) + static_cast<size_t>(n)] =
          (static_cast<double>(sum) * x.scales[i] +
           static_cast<double>(tail) * x.outlier_scales[i]) *
              f16_to_f32(p.row_scales[static_cast<size_t>(n)]) +
          (p.bias.empty() ? 0.0 : p.bias[static_cast<size_t>(n)]);
    }
  }
  return y;
}

}  // namespace atom::cuda
