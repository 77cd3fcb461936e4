#include "tensor/quantized_linear.h"

#include "tensor/packing.h"

namespace atom {

PackedLinear make_quantized_linear(const LinearFormat& format, int64_t rows, int64_t cols) {
  PackedLinear packed;
  packed.format = format;
  packed.rows = rows;
  packed.cols = cols;
  const WeightFormat& weight = format.weight;
  const auto n = static_cast<size_t>(rows);
  const auto body = static_cast<size_t>(packed.body());
  const auto groups = static_cast<size_t>(packed.groups());
  const auto outliers = static_cast<size_t>(weight.outliers);
  packed.codes.resize(n * (weight.bits == 8 ? body : body / 2));
  if (weight.kind == WeightKind::kTwoLevel) {
    packed.row_scales.resize(n);
    packed.group_scales.resize(n * groups);
    packed.group_zeros.resize(n * groups);
  } else {
    if (weight.scales == GroupScales::kE4M3) {
      packed.row_scales.resize(n);
      packed.group_scales.resize(n * groups);
    } else {
      packed.scales.resize(n * groups);
    }
    if (weight.outlier_kind == OutlierKind::kInt8) packed.outlier_scales.resize(n);
  }
  if (weight.outlier_kind == OutlierKind::kInt8) packed.outlier_codes.resize(n * outliers);
  if (weight.outlier_kind == OutlierKind::kFloat) packed.outlier_values.resize(n * outliers);
  return packed;
}

void dequantize_row(const PackedLinear& p, int64_t n, std::span<double> out) {
  ATOM_CHECK(n >= 0 && n < p.rows && static_cast<int64_t>(out.size()) == p.cols, "no such row");
  const WeightFormat& w = p.format.weight;
  double* row = out.data();
  if (w.kind == WeightKind::kFloat) {
    for (int64_t k = 0; k < p.cols; ++k) {
      const auto i = static_cast<size_t>(n * p.cols + k);
      row[k] = w.dtype == DType::kF32   ? p.values[i]
               : w.dtype == DType::kF16 ? f16_to_f32(p.values16[i])
                                        : bf16_to_f32(p.values16[i]);
    }
    return;
  }
  const int64_t body = p.body(), groups = p.groups(), outliers = w.outliers;
  const int64_t group = w.group == 0 ? body : w.group;
  const double row_scale =
      p.row_scales.empty() ? 0.0 : f16_to_f32(p.row_scales[static_cast<size_t>(n)]);
  for (int64_t k = 0; k < body; ++k) {
    const auto g = static_cast<size_t>(n * groups + k / group);
    if (w.kind == WeightKind::kTwoLevel) {
      const int q = unsigned_nibble(p.codes.data() + n * (body / 2), k);
      row[k] = (q * p.group_scales[g] + p.group_zeros[g]) * row_scale;
    } else {
      const int q = w.bits == 8 ? static_cast<int8_t>(p.codes[static_cast<size_t>(n * body + k)])
                                : grouped_nibble(w.grid, p.codes.data() + n * (body / 2), k);
      const double scale = w.scales == GroupScales::kE4M3
                               ? e4m3_value(p.group_scales[g]) * row_scale
                               : f16_to_f32(p.scales[g]);
      row[k] = q * scale;
    }
  }
  for (int64_t k = 0; k < outliers; ++k) {
    const auto i = static_cast<size_t>(n * outliers + k);
    if (w.outlier_kind == OutlierKind::kFloat) {
      row[body + k] = f16_to_f32(p.outlier_values[i]);
    } else {
      const double scale = w.kind == WeightKind::kTwoLevel
                               ? row_scale
                               : f16_to_f32(p.outlier_scales[static_cast<size_t>(n)]);
      row[body + k] = p.outlier_codes[i] * scale;
    }
  }
}

std::vector<uint16_t> f16_scales(const PackedLinear& p) {
  if (p.format.weight.scales != GroupScales::kE4M3) return p.scales;
  std::vector<uint16_t> scales(p.group_scales.size());
  const auto groups = static_cast<size_t>(p.groups());
  for (size_t i = 0; i < scales.size(); ++i) {
    scales[i] = f32_to_f16(e4m3_value(p.group_scales[i]) * f16_to_f32(p.row_scales[i / groups]));
  }
  return scales;
}

}  // namespace atom
