// What the reference backend keeps of tensors, activations, weights and the cache: real values in
// plain row-major arrays, beside the codes that they came from.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/backend.h"

namespace atom::ref {

class RefTensor final : public Tensor {
 public:
  RefTensor(int64_t rows, int64_t cols)
      : rows_(rows), cols_(cols), values_(static_cast<size_t>(rows * cols)) {}
  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  DType dtype() const override { return DType::kF32; }

  std::span<float> all() { return values_; }
  std::span<const float> all() const { return values_; }
  std::span<float> row(int64_t i) {
    return all().subspan(static_cast<size_t>(i * cols_), static_cast<size_t>(cols_));
  }
  std::span<const float> row(int64_t i) const {
    return all().subspan(static_cast<size_t>(i * cols_), static_cast<size_t>(cols_));
  }

 private:
  int64_t rows_, cols_;
  std::vector<float> values_;  // [rows, cols]
};

class RefActivations final : public Activations {
 public:
  RefActivations(const LinearFormat& format, int64_t channels, int64_t max_tokens);
  const LinearFormat& format() const override { return format_; }
  int64_t max_tokens() const override { return max_tokens_; }
  int64_t channels() const override { return channels_; }

  // Quantizes one token's channels, which stand in permuted order already: x [K].
  void store(int64_t token, std::span<const float> x);
  // Takes over a token of activations of the same format and width.
  void copy(int64_t token, const RefActivations& from, int64_t from_token);
  // What the codes of a token stand for, exactly: [K].
  std::span<const double> values(int64_t token) const;
  HostActivations to_host(int64_t tokens) const;

 private:
  void store_group(int64_t token, int64_t first, std::span<const float> x, const ActFormat& format,
                   float unit, float& scale);

  LinearFormat format_;
  int64_t channels_, max_tokens_, body_, groups_;
  std::vector<int8_t> codes_;          // [T, K]; 0 where a channel is kept in float
  std::vector<float> scales_;          // [T, groups]
  std::vector<float> outlier_scales_;  // [T]
  std::vector<double> values_;         // [T, K]
};

class RefLinear final : public LinearWeights {
 public:
  explicit RefLinear(const PackedLinear& packed);
  const LinearFormat& format() const override { return format_; }
  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override;

  // A float holds every weight exactly: a code has 8 bits, an F16 scale 11.
  std::span<const float> row(int64_t n) const {
    return std::span(values_).subspan(static_cast<size_t>(n * cols_), static_cast<size_t>(cols_));
  }
  double bias(int64_t n) const { return bias_.empty() ? 0.0 : bias_[static_cast<size_t>(n)]; }

 private:
  LinearFormat format_;
  int64_t rows_, cols_;
  std::vector<float> values_;  // [N, K]
  std::vector<float> bias_;    // [N] or empty
};

class RefKvCache final : public KvCache {
 public:
  enum Part { kKey, kValue };

  explicit RefKvCache(const KvCacheShape& shape);
  const KvCacheShape& shape() const override { return shape_; }
  void set_prefix(int64_t layer, std::span<const float> k, std::span<const float> v) override;

  // Rounds x [DH] to the cache's format and keeps what it then stands for.
  void store(int64_t layer, Part part, int64_t page, int64_t slot, int64_t head,
             std::span<const float> x);
  // One vector [DH] of the token at index `token` of a sequence, or of a prefix token.
  std::span<const double> load(int64_t layer, Part part, std::span<const int32_t> pages,
                               int64_t token, int64_t head) const;
  std::span<const double> load_prefix(int64_t layer, Part part, int64_t token, int64_t head) const;

 private:
  size_t offset(int64_t layer, Part part, int64_t page, int64_t slot, int64_t head) const;
  size_t prefix_offset(int64_t layer, Part part, int64_t token, int64_t head) const;

  KvCacheShape shape_;
  std::vector<double> values_;  // [layers, 2, pages, kPageTokens, KH, DH]
  std::vector<double> prefix_;  // [layers, 2, prefix tokens, KH, DH]
};

}  // namespace atom::ref
