#include "tensor/packed_linear.h"

#include <cmath>
#include <limits>

#include "tensor/packing.h"
#include "tensor/quantized_linear.h"

namespace atom {
namespace {

template <class T>
int64_t array_bytes(const std::vector<T>& array) {
  return static_cast<int64_t>(array.size() * sizeof(T));
}

template <class T>
Status check_size(const std::vector<T>& array, int64_t wanted, const char* name) {
  if (static_cast<int64_t>(array.size()) == wanted) return {};
  return error(ErrorCode::kCorrupt, "{}: {} elements, expected {}", name, array.size(), wanted);
}

Status check_f16_finite(const std::vector<uint16_t>& array, bool negative_allowed,
                        const char* name) {
  for (size_t i = 0; i < array.size(); ++i) {
    if ((array[i] & 0x7c00u) == 0x7c00u) {
      return error(ErrorCode::kCorrupt, "{}[{}]: not finite", name, i);
    }
    if (!negative_allowed && (array[i] & 0x8000u) != 0 && array[i] != 0x8000u) {
      return error(ErrorCode::kCorrupt, "{}[{}]: negative", name, i);
    }
  }
  return {};
}

// E4M3 scales and their units, whose products F16 holds exactly.
Status check_e4m3_scales(const PackedLinear& p) {
  for (size_t i = 0; i < p.group_scales.size(); ++i) {
    if (p.group_scales[i] > kMostE4M3Bits) {
      return error(ErrorCode::kCorrupt, "group_scales[{}]: {} are not the bits of a positive E4M3",
                   i, p.group_scales[i]);
    }
  }
  constexpr uint16_t kLeast = 0x0200, kMost = 0x5800;  // F16 of 2^-15 and 2^7
  for (size_t i = 0; i < p.row_scales.size(); ++i) {
    const uint16_t unit = p.row_scales[i];
    if (unit != kLeast && (unit < 0x0400 || unit > kMost || (unit & 0x03ff) != 0)) {
      return error(ErrorCode::kCorrupt, "row_scales[{}]: {} is not a power of two in 2^-15 .. 2^7",
                   i, f16_to_f32(unit));
    }
  }
  return {};
}

}  // namespace

int64_t PackedLinear::bytes() const {
  return array_bytes(values) + array_bytes(values16) + array_bytes(codes) + array_bytes(scales) +
         array_bytes(group_scales) + array_bytes(group_zeros) + array_bytes(row_scales) +
         array_bytes(outlier_codes) + array_bytes(outlier_scales) + array_bytes(outlier_values) +
         array_bytes(bias);
}

Status validate(const PackedLinear& p) {
  if (p.rows <= 0) return error(ErrorCode::kCorrupt, "rows = {}: must be positive", p.rows);
  ATOM_TRY(validate(p.format, p.cols));
  // No array has more elements than there are weights.
  if (p.rows > std::numeric_limits<int64_t>::max() / p.cols) {
    return error(ErrorCode::kCorrupt, "rows = {}: too many for {} columns", p.rows, p.cols);
  }
  const WeightFormat& w = p.format.weight;
  const int64_t n = p.rows, body = p.body(), groups = p.groups();
  const bool grouped = w.kind == WeightKind::kGrouped, two = w.kind == WeightKind::kTwoLevel;
  const bool e4m3 = grouped && w.scales == GroupScales::kE4M3;
  const bool int_outliers = w.kind != WeightKind::kFloat && w.outlier_kind == OutlierKind::kInt8;
  const bool float_outliers = w.kind != WeightKind::kFloat && w.outlier_kind == OutlierKind::kFloat;
  const bool is_f32 = w.kind == WeightKind::kFloat && w.dtype == DType::kF32;
  const bool is_16 = w.kind == WeightKind::kFloat && w.dtype != DType::kF32;
  ATOM_TRY(check_size(p.values, is_f32 ? n * p.cols : 0, "values"));
  ATOM_TRY(check_size(p.values16, is_16 ? n * p.cols : 0, "values"));
  const int64_t code_bytes = w.bits == 8 ? body : body / 2;
  ATOM_TRY(check_size(p.codes, grouped || two ? n * code_bytes : 0, "qweight"));
  ATOM_TRY(check_size(p.scales, grouped && !e4m3 ? n * groups : 0, "scales"));
  ATOM_TRY(check_size(p.group_scales, two || e4m3 ? n * groups : 0, "group_scales"));
  ATOM_TRY(check_size(p.group_zeros, two ? n * groups : 0, "group_zeros"));
  ATOM_TRY(check_size(p.row_scales, two || e4m3 ? n : 0, "row_scales"));
  ATOM_TRY(check_size(p.outlier_codes, int_outliers ? n * w.outliers : 0, "outlier_qweight"));
  ATOM_TRY(check_size(p.outlier_scales, int_outliers && grouped ? n : 0, "outlier_scales"));
  ATOM_TRY(check_size(p.outlier_values, float_outliers ? n * w.outliers : 0, "outlier_weight"));
  if (!p.bias.empty()) ATOM_TRY(check_size(p.bias, n, "bias"));
  // Signed scales are legal for grouped codes: the largest weight of a group then lands on -8.
  ATOM_TRY(check_f16_finite(p.scales, true, "scales"));
  ATOM_TRY(check_f16_finite(p.row_scales, false, "row_scales"));
  ATOM_TRY(check_f16_finite(p.outlier_scales, false, "outlier_scales"));
  ATOM_TRY(check_f16_finite(p.outlier_values, true, "outlier_weight"));
  if (e4m3) ATOM_TRY(check_e4m3_scales(p));
  for (size_t i = 0; i < p.group_zeros.size(); ++i) {
    const int s = p.group_scales[i], z = p.group_zeros[i];
    if (s < 1 || s > 16)
      return error(ErrorCode::kCorrupt, "group_scales[{}]: {} is not 1..16", i, s);
    if (z + 15 * s > 127) {
      return error(ErrorCode::kCorrupt, "group_zeros[{}]: {} with scale {} leaves int8", i, z, s);
    }
  }
  for (size_t i = 0; i < p.bias.size(); ++i) {
    if (!std::isfinite(p.bias[i])) return error(ErrorCode::kCorrupt, "bias[{}]: not finite", i);
  }
  return {};
}

void dequantize(const PackedLinear& p, std::span<double> out) {
  ATOM_CHECK(static_cast<int64_t>(out.size()) == p.rows * p.cols, "wrong output size");
  const auto cols = static_cast<size_t>(p.cols);
  for (int64_t n = 0; n < p.rows; ++n) {
    dequantize_row(p, n, out.subspan(static_cast<size_t>(n) * cols, cols));
  }
}

PackedLinear make_float_linear(std::span<const float> values, int64_t rows, int64_t cols) {
  ATOM_CHECK(static_cast<int64_t>(values.size()) == rows * cols, "wrong number of values");
  PackedLinear linear;
  linear.rows = rows;
  linear.cols = cols;
  linear.values.assign(values.begin(), values.end());
  return linear;
}

}  // namespace atom
