#include "quant/weight_quantizer.h"

#include <algorithm>
#include <cmath>

#include "base/blas.h"
#include "base/multiversion.h"
#include "base/parallel.h"
#include "ops/weight_grid.h"
#include "quant/group_grid.h"
#include "tensor/packing.h"
#include "tensor/quantized_linear.h"

namespace atom {
namespace {

constexpr int64_t R = kChunkRows;
constexpr int64_t kBlock = 128;  // columns between two lazy updates of the rest (GPTQ's block size)

// column[j] -= error * factor[j], for the columns of a block behind the one just rounded.
ATOM_MULTIVERSION void spread_error(const float* factor_row, int64_t begin, int64_t end,
                                    const float* error, float* w) {
  for (int64_t j = begin; j < end; ++j) {
    const float u = factor_row[j];
    float* column = w + j * R;
    for (int64_t r = 0; r < R; ++r) column[r] -= error[r] * u;
  }
}

// Quantizes rows [first, first + count) of one linear.
class ChunkQuantizer {
 public:
  ChunkQuantizer(std::span<const float> weights, const WeightQuantSpec& spec,
                 const GptqFactor* factor, const float* importance, PackedLinear& packed,
                 int64_t first)
      : spec_(spec),
        factor_(factor),
        importance_(importance),
        packed_(packed),
        cols_(packed.cols),
        first_(first),
        count_(std::min(R, packed.rows - first)),
        w_(static_cast<size_t>(cols_ * R)) {
    for (int64_t r = 0; r < count_; ++r) {
      const float* row = weights.data() + (first + r) * cols_;
      for (int64_t k = 0; k < cols_; ++k) w_[static_cast<size_t>(k * R + r)] = row[k];
    }
  }

  void run() {
    if (!packed_.row_scales.empty()) choose_row_scales();
    const int64_t body = packed_.body();
    std::vector<float> errors(static_cast<size_t>(kBlock * R));
    for (int64_t begin = 0; begin < body; begin += kBlock) {
      const int64_t end = std::min(begin + kBlock, body);
      for (int64_t k = begin; k < end; ++k)
        quantize_column(k, end, errors.data() + (k - begin) * R);
      if (factor_ != nullptr && end < cols_) {
        blas::gemm(true, false, cols_ - end, R, end - begin, -1.0f,
                   factor_->upper.data() + begin * cols_ + end, cols_, errors.data(), R, 1.0f,
                   w_.data() + end * R, R);
      }
    }
    store_outliers();
  }

 private:
  float* column(int64_t k) { return w_.data() + k * R; }

  void choose_row_scales() {
    const bool two_level = spec_.format.weight.kind == WeightKind::kTwoLevel;
    for (int64_t r = 0; r < R; ++r) {
      float absmax = 0;
      const int64_t end = two_level ? cols_ : packed_.body();
      for (int64_t k = 0; k < end; ++k) absmax = std::max(absmax, std::fabs(column(k)[r]));
      uint16_t scale =
          f32_to_f16(two_level ? weight_grid::row_scale(absmax) : weight_grid::row_unit(absmax));
      if (scale == 0 && absmax > 0) scale = 1;
      row_scale_[r] = f16_to_f32(scale);
      if (r < count_) packed_.row_scales[static_cast<size_t>(first_ + r)] = scale;
    }
  }

  void quantize_column(int64_t k, int64_t block_end, float* error) {
    const WeightFormat& format = spec_.format.weight;
    const int64_t body = packed_.body();
    const int64_t group = format.group == 0 ? body : format.group;
    if (k % group == 0) start_group(k / group, k, group);
    alignas(64) float codes[R], values[R];
    round_column(column(k), grid_, codes, values);
    store_codes(k, codes);
    if (factor_ == nullptr) return;
    const float* factor_row = factor_->upper.data() + k * cols_;
    const float pivot = factor_row[k];
    for (int64_t r = 0; r < R; ++r) error[r] = (column(k)[r] - values[r]) / pivot;
    spread_error(factor_row, k + 1, block_end, error, w_.data());
  }

  void start_group(int64_t index, int64_t k, int64_t columns) {
    const WeightFormat& format = spec_.format.weight;
    const int64_t groups = packed_.groups();
    if (format.kind == WeightKind::kTwoLevel) {
      choose_two_level_grid(column(k), columns, spec_, row_scale_, importance_ + k, grid_);
    } else {
      choose_grouped_grid(column(k), columns, spec_,
                          weight_grid::absmax_divisor(format, factor_ != nullptr), row_scale_,
                          importance_ + k, grid_);
    }
    for (int64_t r = 0; r < count_; ++r) {
      const auto at = static_cast<size_t>((first_ + r) * groups + index);
      if (format.kind == WeightKind::kTwoLevel) {
        packed_.group_scales[at] = grid_.group_scale[r];
        packed_.group_zeros[at] = grid_.group_zero[r];
      } else if (format.scales == GroupScales::kE4M3) {
        packed_.group_scales[at] = e4m3_bits(grid_.scale[r] / row_scale_[r]);
      } else {
        packed_.scales[at] = f32_to_f16(grid_.scale[r]);
      }
    }
  }

  void store_codes(int64_t k, const float* codes) {
    const int64_t body = packed_.body();
    const WeightFormat& format = spec_.format.weight;
    for (int64_t r = 0; r < count_; ++r) {
      const int code = static_cast<int>(codes[r]);
      if (format.bits == 8) {
        packed_.codes[static_cast<size_t>((first_ + r) * body + k)] = static_cast<uint8_t>(code);
      } else {
        set_nibble(packed_.codes.data() + (first_ + r) * (body / 2), k,
                   format.grid == CodeGrid::kE2M1 ? e2m1_bits(code) : code);
      }
    }
  }

  void store_outliers() {
    const WeightFormat& format = spec_.format.weight;
    const int64_t body = packed_.body(), outliers = format.outliers;
    for (int64_t r = 0; r < count_ && outliers > 0; ++r) {
      const auto row = static_cast<size_t>(first_ + r);
      float scale = row_scale_[r];
      if (format.outlier_kind == OutlierKind::kInt8 && format.kind == WeightKind::kGrouped) {
        float absmax = 0;
        for (int64_t k = body; k < cols_; ++k) absmax = std::max(absmax, std::fabs(column(k)[r]));
        uint16_t half = f32_to_f16(weight_grid::outlier_scale(absmax));
        if (half == 0 && absmax > 0) half = 1;
        packed_.outlier_scales[row] = half;
        scale = f16_to_f32(half);
      }
      for (int64_t k = 0; k < outliers; ++k) {
        const float value = column(body + k)[r];
        const size_t at = row * static_cast<size_t>(outliers) + static_cast<size_t>(k);
        if (format.outlier_kind == OutlierKind::kFloat) {
          packed_.outlier_values[at] = f32_to_f16(std::clamp(value, -65504.0f, 65504.0f));
        } else {
          packed_.outlier_codes[at] = static_cast<int8_t>(weight_grid::outlier_code(value, scale));
        }
      }
    }
  }

  const WeightQuantSpec& spec_;
  const GptqFactor* factor_;
  const float* importance_;
  PackedLinear& packed_;
  int64_t cols_, first_, count_;
  std::vector<float> w_;  // [K][R], rows past count_ are zero
  alignas(64) float row_scale_[R] = {};
  GroupGrid grid_{};
};

PackedLinear pack_floats(std::span<const float> weights, int64_t rows, int64_t cols,
                         const LinearFormat& format) {
  if (format.weight.dtype == DType::kF32) {
    PackedLinear packed = make_float_linear(weights, rows, cols);
    packed.format = format;
    return packed;
  }
  PackedLinear packed;
  packed.format = format;
  packed.rows = rows;
  packed.cols = cols;
  packed.values16.resize(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    packed.values16[i] =
        format.weight.dtype == DType::kF16 ? f32_to_f16(weights[i]) : f32_to_bf16(weights[i]);
  }
  return packed;
}

}  // namespace

PackedLinear quantize_weights(std::span<const float> weights, int64_t rows, int64_t cols,
                              const WeightQuantSpec& spec, const GptqFactor* factor,
                              std::span<const float> importance) {
  ATOM_CHECK(static_cast<int64_t>(weights.size()) == rows * cols, "weights are not [rows, cols]");
  if (spec.format.weight.kind == WeightKind::kFloat) {
    return pack_floats(weights, rows, cols, spec.format);
  }
  ATOM_CHECK(factor == nullptr || factor->size == cols, "the Hessian is of another site");
  PackedLinear packed = make_quantized_linear(spec.format, rows, cols);
  const std::vector<float> ones(importance.empty() ? static_cast<size_t>(cols) : 0, 1.0f);
  const float* search_weights = factor != nullptr    ? factor->diagonal.data()
                                : importance.empty() ? ones.data()
                                                     : importance.data();
  parallel_for((rows + R - 1) / R, [&](int64_t chunk) {
    ChunkQuantizer(weights, spec, factor, search_weights, packed, chunk * R).run();
  });
  return packed;
}

}  // namespace atom
