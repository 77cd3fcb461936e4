// The arrays of a PackedLinear as named tensors: the one place that knows how the two correspond.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tensor/packed_linear.h"

namespace atom {

// Calls visit(suffix, dtype, shape, array) for each array that the format calls for, except the
// bias, which any linear may have: "qweight", kU8, [N, Kb/2], codes... `Linear` is PackedLinear,
// const or not; the arrays need not be filled. Stops at the first error.
// REQUIRES: validate(linear.format, linear.cols).
template <class Linear, class Visit>
Status for_each_part(Linear& p, Visit&& visit) {
  using Shape = std::vector<int64_t>;
  const WeightFormat& w = p.format.weight;
  const int64_t n = p.rows;
  if (w.kind == WeightKind::kFloat) {
    const Shape shape = {n, p.cols};
    return w.dtype == DType::kF32 ? visit("weight", w.dtype, shape, p.values)
                                  : visit("weight", w.dtype, shape, p.values16);
  }
  const int64_t body = p.body(), groups = p.groups(), outliers = w.outliers;
  if (w.bits == 8) {
    ATOM_TRY(visit("qweight", DType::kI8, Shape{n, body}, p.codes));
  } else {
    ATOM_TRY(visit("qweight", DType::kU8, Shape{n, body / 2}, p.codes));
  }
  if (w.kind == WeightKind::kGrouped && w.scales == GroupScales::kE4M3) {
    ATOM_TRY(visit("group_scales", DType::kU8, Shape{n, groups}, p.group_scales));
    ATOM_TRY(visit("row_scales", DType::kF16, Shape{n}, p.row_scales));
  } else if (w.kind == WeightKind::kGrouped) {
    ATOM_TRY(visit("scales", DType::kF16, Shape{n, groups}, p.scales));
  } else {
    ATOM_TRY(visit("group_scales", DType::kU8, Shape{n, groups}, p.group_scales));
    ATOM_TRY(visit("group_zeros", DType::kI8, Shape{n, groups}, p.group_zeros));
    ATOM_TRY(visit("row_scales", DType::kF16, Shape{n}, p.row_scales));
  }
  if (w.outlier_kind == OutlierKind::kFloat) {
    return visit("outlier_weight", DType::kF16, Shape{n, outliers}, p.outlier_values);
  }
  if (w.outlier_kind == OutlierKind::kNone) return {};
  ATOM_TRY(visit("outlier_qweight", DType::kI8, Shape{n, outliers}, p.outlier_codes));
  if (w.kind == WeightKind::kTwoLevel) return {};  // its outliers stand on the row's grid
  return visit("outlier_scales", DType::kF16, Shape{n}, p.outlier_scales);
}

}  // namespace atom
