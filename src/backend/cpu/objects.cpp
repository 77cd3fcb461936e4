#include "backend/cpu/objects.h"

#include <algorithm>

namespace atom::cpu {

Result<std::unique_ptr<CpuTensor>> CpuTensor::create(int64_t rows, int64_t cols) {
  if (rows < 0 || cols <= 0 || rows > INT64_MAX / 8 / cols) {
    return error(ErrorCode::kInvalidArgument, "tensor: bad shape {} x {}", rows, cols);
  }
  std::unique_ptr<CpuTensor> tensor(new CpuTensor(rows, cols));
  if (!tensor->data_.allocate(rows * cols)) {
    return error(ErrorCode::kOutOfMemory, "tensor: no memory for {} x {} floats", rows, cols);
  }
  return tensor;
}

ActLayout ActLayout::of(const LinearFormat& format, int64_t channels) {
  const WeightFormat& w = format.weight;
  ActLayout layout;
  if (!format.act.quantized) {
    layout.value_stride = channels;
    return layout;
  }
  layout.quantized = true;
  layout.int_outliers = w.outlier_kind == OutlierKind::kInt8;
  layout.body = body_channels(w, channels);
  layout.outliers = w.outliers;
  layout.group = format.act.group == 0 ? layout.body : format.act.group;
  layout.groups = group_count(layout.body, format.act.group);
  layout.sum_group = w.group == 0 ? layout.body : w.group;
  layout.sum_groups = group_count(layout.body, w.group);
  layout.outlier_offset = round_up(layout.body, kCacheLine);
  layout.code_stride =
      layout.outlier_offset + (layout.int_outliers ? round_up(w.outliers, kCacheLine) : 0);
  if (w.outlier_kind == OutlierKind::kFloat) layout.value_stride = w.outliers;
  return layout;
}

Result<std::unique_ptr<CpuActivations>> CpuActivations::create(const LinearFormat& format,
                                                               int64_t channels,
                                                               int64_t max_tokens) {
  if (max_tokens < 0 || channels <= 0 || max_tokens > INT64_MAX / 64 / channels) {
    return error(ErrorCode::kInvalidArgument, "activations: bad shape {} x {}", max_tokens,
                 channels);
  }
  std::unique_ptr<CpuActivations> acts(new CpuActivations(format, channels, max_tokens));
  const ActLayout& layout = acts->layout = ActLayout::of(format, channels);
  bool fits = acts->values.allocate(max_tokens * layout.value_stride);
  if (layout.quantized) {
    fits = fits && acts->codes.allocate(max_tokens * layout.code_stride + kCacheLine) &&
           acts->scales.allocate(max_tokens * layout.groups) &&
           acts->sums.allocate(max_tokens * layout.sum_groups);
  }
  if (layout.int_outliers) {
    fits = fits && acts->outlier_scales.allocate(max_tokens) &&
           acts->outlier_sums.allocate(max_tokens);
  }
  if (!fits) {
    return error(ErrorCode::kOutOfMemory, "activations: no memory for {} x {}", max_tokens,
                 channels);
  }
  return acts;
}

void CpuActivations::copy_row(int64_t t, const CpuActivations& from, int64_t from_t) {
  const auto copy = [&](const auto& source, auto& to, int64_t stride) {
    if (to.data() != nullptr) {
      std::copy_n(source.data() + from_t * stride, stride, to.data() + t * stride);
    }
  };
  copy(from.codes, codes, layout.code_stride);
  copy(from.scales, scales, layout.groups);
  copy(from.sums, sums, layout.sum_groups);
  copy(from.outlier_scales, outlier_scales, 1);
  copy(from.outlier_sums, outlier_sums, 1);
  copy(from.values, values, layout.value_stride);
}

}  // namespace atom::cpu
