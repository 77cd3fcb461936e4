// Random packed linears and activations for the CPU backend's tests.
#pragma once

#include <algorithm>

#include "base/random.h"
#include "ops/backend.h"

namespace atom::test {

inline std::vector<float> random_floats(int64_t n, uint64_t seed) {
  Random random(seed);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = static_cast<float>(random.normal());
  return values;
}

inline PackedLinear random_linear(const LinearFormat& format, int64_t rows, int64_t cols, bool bias,
                                  uint64_t seed) {
  Random random(seed);
  PackedLinear p;
  p.format = format;
  p.rows = rows;
  p.cols = cols;
  const WeightFormat& w = format.weight;
  const auto fill = [&](auto& array, int64_t count, auto make) {
    array.resize(static_cast<size_t>(count));
    for (auto& v : array) v = static_cast<std::remove_reference_t<decltype(v)>>(make());
  };
  const auto scale = [&] { return f32_to_f16(static_cast<float>(0.01 + 0.1 * random.uniform())); };
  const auto signed_scale = [&] {
    return f32_to_f16(
        static_cast<float>((random.below(2) != 0 ? 1 : -1) * (0.01 + 0.1 * random.uniform())));
  };
  if (bias) fill(p.bias, rows, [&] { return random.normal(); });
  if (w.kind == WeightKind::kFloat) {
    if (w.dtype == DType::kF32) fill(p.values, rows * cols, [&] { return random.normal(); });
    if (w.dtype == DType::kF16) {
      fill(p.values16, rows * cols,
           [&] { return f32_to_f16(static_cast<float>(random.normal())); });
    }
    if (w.dtype == DType::kBF16) {
      fill(p.values16, rows * cols,
           [&] { return f32_to_bf16(static_cast<float>(random.normal())); });
    }
    return p;
  }
  fill(p.codes, rows * (w.bits == 8 ? p.body() : p.body() / 2), [&] { return random.next(); });
  if (w.kind == WeightKind::kGrouped) {
    fill(p.scales, rows * p.groups(), signed_scale);
  } else {
    fill(p.group_scales, rows * p.groups(), [&] { return 1 + random.below(16); });
    p.group_zeros.resize(p.group_scales.size());
    for (size_t i = 0; i < p.group_zeros.size(); ++i) {
      p.group_zeros[i] = static_cast<int8_t>(-128 + random.below(256 - 15 * p.group_scales[i]));
    }
    fill(p.row_scales, rows, scale);
  }
  if (w.outlier_kind == OutlierKind::kInt8) {
    fill(p.outlier_codes, rows * w.outliers, [&] { return random.next(); });
    if (w.kind == WeightKind::kGrouped) fill(p.outlier_scales, rows, scale);
  }
  if (w.outlier_kind == OutlierKind::kFloat) fill(p.outlier_values, rows * w.outliers, scale);
  return p;
}

// Mean square of the difference over that of the reference.
inline double nmse(std::span<const float> got, std::span<const double> want) {
  double miss = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    miss += (got[i] - want[i]) * (got[i] - want[i]);
    size += want[i] * want[i];
  }
  return miss / std::max(size, 1e-300);
}

}  // namespace atom::test
