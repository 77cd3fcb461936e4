// The CPU backend's tensors and activations.
#pragma once

#include "backend/cpu/aligned_buffer.h"
#include "ops/backend.h"

namespace atom::cpu {

class CpuTensor final : public Tensor {
 public:
  static Result<std::unique_ptr<CpuTensor>> create(int64_t rows, int64_t cols);

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  DType dtype() const override { return DType::kF32; }

  float* row(int64_t i) { return data_.data() + i * cols_; }
  const float* row(int64_t i) const { return data_.data() + i * cols_; }

 private:
  CpuTensor(int64_t rows, int64_t cols) : rows_(rows), cols_(cols) {}
  int64_t rows_, cols_;
  AlignedBuffer<float> data_;
};

// Where the parts of one token's activations stand.
struct ActLayout {
  bool quantized = false;
  bool int_outliers = false;
  int64_t body = 0;            // Kb
  int64_t outliers = 0;        // Ko
  int64_t group = 0;           // body channels under one scale
  int64_t groups = 0;          // Kb / group
  int64_t sum_group = 0;       // body channels under one weight scale: what sums are taken over
  int64_t sum_groups = 0;      // Kb / sum_group
  int64_t outlier_offset = 0;  // of the outlier codes in a row of codes
  int64_t code_stride = 0;     // bytes of a row of codes
  int64_t value_stride = 0;    // floats of a row of values

  static ActLayout of(const LinearFormat& format, int64_t channels);
};

// Rows of codes, each padded with zeros to whole cache lines so that kernels may read past the end
// of the body and of the outliers:
//
//     | body codes ... 0 | outlier codes ... 0 |     code_stride bytes a token
class CpuActivations final : public Activations {
 public:
  static Result<std::unique_ptr<CpuActivations>> create(const LinearFormat& format,
                                                        int64_t channels, int64_t max_tokens);

  const LinearFormat& format() const override { return format_; }
  int64_t max_tokens() const override { return max_tokens_; }
  int64_t channels() const override { return channels_; }

  ActLayout layout;
  AlignedBuffer<int8_t> codes;          // [T, code_stride] and a cache line that may be read
  AlignedBuffer<float> scales;          // [T, groups]
  AlignedBuffer<int32_t> sums;          // [T, sum_groups] of the codes
  AlignedBuffer<float> outlier_scales;  // [T]
  AlignedBuffer<int32_t> outlier_sums;  // [T]
  AlignedBuffer<float> values;          // [T, K] of float formats, [T, Ko] of float outliers

  const float* value_row(int64_t t) const { return values.data() + t * layout.value_stride; }
  // Takes over a token of activations of the same format and width.
  void copy_row(int64_t t, const CpuActivations& from, int64_t from_t);

 private:
  CpuActivations(const LinearFormat& format, int64_t channels, int64_t max_tokens)
      : format_(format), channels_(channels), max_tokens_(max_tokens) {}
  LinearFormat format_;
  int64_t channels_, max_tokens_;
};

}  // namespace atom::cpu
