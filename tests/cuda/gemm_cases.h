// Random problems for the GEMM tests, and the integer reference: exact sums on the host.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "backend/cuda/gemm/gemm_args.h"
#include "backend/cuda/gemm/pack_weights.h"
#include "backend/cuda/gemm/w4a4_layout.h"
#include "base/random.h"
#include "tensor/joined_rows.h"
#include "tensor/packed_linear.h"
#include "tensor/packing.h"

namespace atom::cuda {

// Quantized activations as the kernels' inputs stand for them, in plain rows.
struct PlainActivations {
  int64_t tokens = 0, cols = 0, outliers = 0;
  int64_t groups = 1;                 // of a token's body
  std::vector<int8_t> codes;          // [tokens, cols], outliers last
  std::vector<float> scales;          // [tokens, groups]
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

// Grouped 4-bit weights whose codes reach both ends of the range.
inline PackedLinear random_grouped(int64_t rows, int64_t body, int64_t outliers, int64_t group,
                                   uint64_t seed, bool bias = false) {
  PackedLinear p = random_two_level(rows, body, outliers, group, seed, bias);
  Random random(seed + 1);
  p.format.weight.kind = WeightKind::kGrouped;
  p.format.act = {.quantized = true, .bits = 4, .group = group};
  for (size_t i = 0; i < p.group_scales.size(); ++i) {
    const double sign = random.below(4) == 0 ? -1 : 1;  // scales may be negative
    p.scales.push_back(f32_to_f16(static_cast<float>(sign * 1e-2 * (0.5 + random.uniform()))));
  }
  if (outliers > 0) p.outlier_scales = p.row_scales;
  p.group_scales.clear();
  p.group_zeros.clear();
  p.row_scales.clear();
  return p;
}

// The same bits as E2M1.
inline PackedLinear random_fp4(int64_t rows, int64_t body, int64_t outliers, int64_t group,
                               uint64_t seed, bool bias = false) {
  PackedLinear p = random_grouped(rows, body, outliers, group, seed, bias);
  p.format.weight.grid = p.format.act.grid = CodeGrid::kE2M1;
  return p;
}

// INT8 weights, one scale a row.
inline PackedLinear random_rows8(int64_t rows, int64_t cols, uint64_t seed, bool bias = false) {
  PackedLinear p = random_grouped(rows, 2 * cols, 0, 0, seed, bias);  // of nibbles: as many bytes
  p.cols = cols;
  p.format.weight.bits = 8;
  p.format.act = {.quantized = true, .bits = 8, .group = 0};
  return p;
}

// Body codes low..high, `groups` scales a token.
inline PlainActivations random_activations(int64_t tokens, int64_t body, int64_t outliers,
                                           uint64_t seed, int low = -127, int high = 127,
                                           int64_t groups = 1) {
  Random random(seed);
  PlainActivations x{.tokens = tokens,
                     .cols = body + outliers,
                     .outliers = outliers,
                     .groups = groups,
                     .codes = {},
                     .scales = {},
                     .outlier_scales = {}};
  x.codes.resize(static_cast<size_t>(tokens * x.cols));
  for (size_t i = 0; i < x.codes.size(); ++i) {
    const bool in_body = static_cast<int64_t>(i) % x.cols < body;
    x.codes[i] =
        static_cast<int8_t>(in_body ? low + random.below(high - low + 1) : random.below(255) - 127);
  }
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t g = 0; g < groups; ++g) {
      x.scales.push_back(static_cast<float>(0.01 * (0.5 + random.uniform())));
    }
    x.outlier_scales.push_back(static_cast<float>(0.1 * (0.5 + random.uniform())));
  }
  return x;
}

// Body codes of E2M1.
inline PlainActivations random_fp4_activations(int64_t tokens, int64_t body, int64_t outliers,
                                               uint64_t seed, int64_t groups) {
  PlainActivations x = random_activations(tokens, body, outliers, seed, 0, 15, groups);
  for (size_t i = 0; i < x.codes.size(); ++i) {
    if (static_cast<int64_t>(i) % x.cols < body) {
      x.codes[i] = static_cast<int8_t>(e2m1_code(x.codes[i]));
    }
  }
  return x;
}

// In the kernels' layout; what no code covers is filled with garbage, which must not matter beyond
// the padding of a block (that is zero, as the quantizers write it).
inline std::vector<int8_t> lay_out(const PlainActivations& x, const w4a8::Shape& shape,
                                   int64_t capacity, GemmFormat format) {
  std::vector<int8_t> out(static_cast<size_t>(shape.act_blocks() * capacity * w4a8::kActBlockBytes),
                          77);
  const int64_t body = x.cols - x.outliers;
  for (int64_t t = 0; t < x.tokens; ++t) {
    for (int64_t b = 0; b < shape.act_blocks(); ++b) {
      for (int64_t k = 0; k < w4a8::kBlockCols; ++k) {
        const bool in_body = b < shape.body_blocks;
        const int64_t at = (in_body ? b : b - shape.body_blocks) * w4a8::kBlockCols + k;
        const bool real = at < (in_body ? body : x.outliers);
        int8_t code = 0;
        if (real) code = x.codes[static_cast<size_t>(t * x.cols + at + (in_body ? 0 : body))];
        if (in_body && has_group_scales(format)) {
          code = static_cast<int8_t>(w4a4::operand_byte(code));
        }
        out[static_cast<size_t>(w4a8::activation_offset(b, t, k, capacity))] = code;
      }
    }
  }
  return out;
}

// The body's scales as the format wants them, NaN where no token stands.
inline std::vector<float> lay_out_scales(const PlainActivations& x, const w4a8::Shape& shape,
                                         int64_t capacity, GemmFormat format) {
  if (!has_group_scales(format)) {
    std::vector<float> out = x.scales;
    out.resize(static_cast<size_t>(capacity), NAN);
    return out;
  }
  const int64_t groups = shape.body_blocks * shape.groups, body = x.cols - x.outliers;
  const int64_t width = w4a8::kBlockCols / shape.groups;  // columns of a block's group
  std::vector<float> out(static_cast<size_t>(groups * capacity), NAN);
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t t = 0; t < x.tokens; ++t) {
      const int64_t group = std::min(g * width, body - 1) / (body / x.groups);
      out[static_cast<size_t>(g * capacity + w4a4::scale_slot(t))] =
          x.scales[static_cast<size_t>(t * x.groups + group)];
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
  const int64_t group = body / groups, act_group = body / x.groups;
  const bool two_level = p.format.weight.kind == WeightKind::kTwoLevel;
  std::vector<double> y(static_cast<size_t>(x.tokens * p.rows));
#pragma omp parallel for
  for (int64_t n = 0; n < p.rows; ++n) {
    // The row's integers, and what one of them stands for in each group and in the outliers.
    std::vector<int32_t> w(static_cast<size_t>(p.cols));
    std::vector<double> unit(static_cast<size_t>(groups));
    double outlier_unit = 0;
    for (int64_t k = 0; k < body; ++k) {
      const auto g = static_cast<size_t>(n * groups + k / group);
      const uint8_t* codes = p.codes.data() + n * (body / 2);
      const bool bytes = p.format.weight.bits == 8;
      w[static_cast<size_t>(k)] =
          bytes       ? static_cast<int8_t>(p.codes[static_cast<size_t>(n * body + k)])
          : two_level ? unsigned_nibble(codes, k) * p.group_scales[g] + p.group_zeros[g]
                      : grouped_nibble(p.format.weight.grid, codes, k);
      unit[static_cast<size_t>(k / group)] =
          f16_to_f32(two_level ? p.row_scales[static_cast<size_t>(n)] : p.scales[g]);
    }
    if (outliers > 0) {
      outlier_unit =
          f16_to_f32((two_level ? p.row_scales : p.outlier_scales)[static_cast<size_t>(n)]);
    }
    for (int64_t k = 0; k < outliers; ++k) {
      w[static_cast<size_t>(body + k)] = p.outlier_codes[static_cast<size_t>(n * outliers + k)];
    }
    for (int64_t t = 0; t < x.tokens; ++t) {
      const int8_t* row = x.codes.data() + t * p.cols;
      double value = p.bias.empty() ? 0.0 : p.bias[static_cast<size_t>(n)];
      for (int64_t g = 0; g < groups; ++g) {
        int64_t sum = 0;
        for (int64_t k = g * group; k < (g + 1) * group; ++k)
          sum += w[static_cast<size_t>(k)] * row[k];
        value += static_cast<double>(sum) * unit[static_cast<size_t>(g)] *
                 x.scales[static_cast<size_t>(t * x.groups + g * group / act_group)];
      }
      int64_t tail = 0;
      for (int64_t k = body; k < p.cols; ++k) tail += w[static_cast<size_t>(k)] * row[k];
      value += static_cast<double>(tail) * outlier_unit * x.outlier_scales[static_cast<size_t>(t)];
      y[static_cast<size_t>(t * p.rows + n)] = value;
    }
  }
  return y;
}

// gate's and up's rows as a GEMM that gates takes them.
inline PackedLinear interleaved(const PackedLinear& gate, const PackedLinear& up) {
  const PackedLinear* parts[] = {&gate, &up};
  return JoinedRows(parts, kGateRun).join();
}
// As they are multiplied apart.
inline PackedLinear concatenated(const PackedLinear& gate, const PackedLinear& up) {
  const PackedLinear* parts[] = {&gate, &up};
  return JoinedRows(parts).join();
}

// silu(gate) * up [tokens, F] of y [tokens, 2 F], gate's columns, then up's.
inline std::vector<double> gated(const std::vector<double>& y, int64_t tokens) {
  std::vector<double> out;
  const int64_t channels = tokens == 0 ? 0 : std::ssize(y) / tokens / 2;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t k = 0; k < channels; ++k) {
      const double gate = y[static_cast<size_t>(2 * t * channels + k)];
      const double up = y[static_cast<size_t>((2 * t + 1) * channels + k)];
      out.push_back(gate / (1.0 + std::exp(-gate)) * up);
    }
  }
  return out;
}

}  // namespace atom::cuda
