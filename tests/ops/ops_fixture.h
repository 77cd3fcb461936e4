// What op cases share: random data as models have it, packed weights, batches with pages, poisoned
// outputs and the comparisons.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/random.h"
#include "ops/backend.h"
#include "ops/backends.h"

namespace atom {

struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<float> values;

  Matrix() = default;
  Matrix(int64_t r, int64_t c) : rows(r), cols(c), values(static_cast<size_t>(r * c)) {}
  float& at(int64_t i, int64_t j) { return values[static_cast<size_t>(i * cols + j)]; }
  float at(int64_t i, int64_t j) const { return values[static_cast<size_t>(i * cols + j)]; }
  std::span<float> row(int64_t i) {
    return std::span(values).subspan(static_cast<size_t>(i * cols), static_cast<size_t>(cols));
  }
  std::span<const float> row(int64_t i) const {
    return std::span(values).subspan(static_cast<size_t>(i * cols), static_cast<size_t>(cols));
  }
};

// Standard normal values; every 16th channel or so is an outlier, 20 to 100 times as large.
Matrix random_matrix(int64_t rows, int64_t cols, uint64_t seed, bool outliers = true);
// Normal values around 1, as norm weights are.
std::vector<float> random_weight(int64_t size, uint64_t seed);
std::vector<int32_t> random_permutation(int64_t size, uint64_t seed);

// --- formats

ActFormat act_format(int bits, int64_t group, ActRule rule = ActRule::kSymmetric, float clip = 1.0f,
                     bool search = false);
LinearFormat grouped_format(int bits, int64_t group, int64_t outliers, OutlierKind kind,
                            ActFormat act = {});
// Activations and grouped weights of E2M1.
ActFormat fp4_acts(int64_t group, float clip = 1.0f, bool search = false);
LinearFormat fp4_format(int64_t group, int64_t outliers, OutlierKind kind, ActFormat act = {});
// The same with E4M3 scales: NVFP4 where groups are of 16.
ActFormat nvfp4_acts(int64_t group = 16, float clip = 1.0f, bool search = false);
LinearFormat nvfp4_format(int64_t group, int64_t outliers, OutlierKind kind, ActFormat act = {});
LinearFormat two_level_format(int64_t group, int64_t outliers, OutlierKind kind,
                              ActFormat act = {});
// Distinguishes formats in failure messages, unlike describe(), which is for people.
std::string format_name(const LinearFormat& format);

enum class Scales : uint8_t {
  kRandom,
  kPowersOfTwo,  // and an integer bias: float sums of products with integers are exact
};
// Codes over their whole range (-128 too), scales of both signs where the format allows.
PackedLinear random_linear(const LinearFormat& format, int64_t rows, int64_t cols, uint64_t seed,
                           Scales scales = Scales::kRandom, bool bias = false);

// --- running ops

// Rows past an output's last one; ops must leave them alone.
inline constexpr int64_t kSentinelRows = 2;

std::unique_ptr<Tensor> make_input(Backend& backend, const Matrix& values,
                                   Precision precision = Precision::kFull);
// Rounded to F16, what is too large to its largest.
Matrix halves_of(Matrix values);
// A tensor of rows + kSentinelRows rows: NaN where the op must write, a constant after.
std::unique_ptr<Tensor> make_output(Backend& backend, int64_t rows, int64_t cols,
                                    Precision precision = Precision::kFull);
// The first rows of such a tensor; fails on NaN and on changed sentinels.
Matrix read_output(Backend& backend, const Tensor& tensor, int64_t rows);

std::unique_ptr<Activations> make_acts(Backend& backend, const LinearFormat& format,
                                       int64_t channels, int64_t max_tokens);
std::unique_ptr<LinearWeights> load(Backend& backend, const PackedLinear& packed);

// --- comparisons

// Sum of squared differences over the sum of squares of `want`.
double nmse(std::span<const float> got, std::span<const float> want);
// Fails with the error and the worst element when nmse > limit.
void expect_close(const Matrix& got, const Matrix& want, double limit);
// Fails at the first element whose bits differ (zeros of either sign are equal).
void expect_same(std::span<const float> got, std::span<const float> want);
// Codes, scales and values bit by bit.
void expect_same(const HostActivations& got, const HostActivations& want);

// --- sequences

struct SequenceSpec {
  int64_t past = 0;
  int64_t added = 1;
};

// A batch and the page tables it points into. Pages are dealt out in random order.
struct TestBatch {
  Batch batch;
  std::vector<std::vector<int32_t>> pages;
  int64_t page_count = 0;
};
TestBatch make_batch(std::span<const SequenceSpec> sequences, int64_t prefix_tokens, uint64_t seed);
// The batch that brings the same sequences to where make_batch's begin: their past tokens as new
// ones, in the same pages.
TestBatch make_past_batch(const TestBatch& whole, int64_t prefix_tokens);

// [positions, rotary_dim / 2, 2]
std::vector<float> make_cos_sin(int64_t positions, int64_t rotary_dim);

}  // namespace atom
