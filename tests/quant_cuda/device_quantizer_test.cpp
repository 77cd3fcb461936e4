// Factors and codes found on the GPU against those found on the host.
#include "ops/device_quantizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "backend/cuda/cuda_backend.h"
#include "base/random.h"
#include "quant/weight_quantizer.h"

namespace atom {
namespace {

// Never destroyed: at the process's end cuBLASLt's own state, which is younger, goes first.
Backend& gpu() {
  static Backend& backend = *make_cuda_backend({}).value().release();
  return backend;
}
DeviceQuantizer& device() { return *gpu().device_quantizer(); }

std::unique_ptr<Tensor> on_device(std::span<const float> square, int64_t k) {
  auto tensor = gpu().make_tensor(k, k).value();
  gpu().write(*tensor, square);
  return tensor;
}

std::vector<float> random_weights(int64_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> w(static_cast<size_t>(count));
  for (float& v : w) v = static_cast<float>(random.normal() * 0.05);
  return w;
}

// X^T X of inputs with something in common, a few channels of them large.
std::vector<float> gram_of_inputs(int64_t k, uint64_t seed) {
  Random random(seed);
  const int64_t samples = 2 * k;
  std::vector<double> h(static_cast<size_t>(k * k)), x(static_cast<size_t>(k));
  for (int64_t t = 0; t < samples; ++t) {
    const double common = random.normal();
    for (int64_t i = 0; i < k; ++i) {
      x[static_cast<size_t>(i)] = (random.normal() + common) * (i % 17 == 0 ? 10 : 1);
    }
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        h[static_cast<size_t>(i * k + j)] += x[static_cast<size_t>(i)] * x[static_cast<size_t>(j)];
      }
    }
  }
  return {h.begin(), h.end()};
}

WeightQuantSpec spec_of(WeightKind kind, int64_t group, int64_t outliers, int bits, ScaleRule rule,
                        OutlierKind outlier_kind = OutlierKind::kInt8) {
  WeightQuantSpec spec;
  spec.format.weight = {.kind = kind,
                        .bits = bits,
                        .group = group,
                        .outliers = outliers,
                        .outlier_kind = outliers == 0 ? OutlierKind::kNone : outlier_kind};
  spec.scale_rule = rule;
  spec.clip = 0.9f;
  return spec;
}

WeightQuantSpec fp4_spec(int64_t group, int64_t outliers, ScaleRule rule) {
  WeightQuantSpec spec = spec_of(WeightKind::kGrouped, group, outliers, 4, rule);
  spec.format.weight.grid = CodeGrid::kE2M1;
  return spec;
}

WeightQuantSpec nvfp4_spec(int64_t outliers, ScaleRule rule) {
  WeightQuantSpec spec = fp4_spec(16, outliers, rule);
  spec.format.weight.scales = GroupScales::kE4M3;
  return spec;
}

constexpr auto kGrouped = WeightKind::kGrouped;
constexpr auto kTwoLevel = WeightKind::kTwoLevel;
const WeightQuantSpec kSpecs[] = {
    spec_of(kTwoLevel, 128, 64, 4, ScaleRule::kSearch),
    spec_of(kTwoLevel, 32, 0, 4, ScaleRule::kAbsmax),
    spec_of(kGrouped, 128, 64, 4, ScaleRule::kAbsmax),
    spec_of(kGrouped, 64, 64, 4, ScaleRule::kSearch),
    spec_of(kGrouped, 32, 64, 3, ScaleRule::kSearch, OutlierKind::kFloat),
    spec_of(kGrouped, 0, 64, 8, ScaleRule::kAbsmax),
    spec_of(kGrouped, 0, 0, 4, ScaleRule::kSearch),
    fp4_spec(128, 64, ScaleRule::kAbsmax),
    fp4_spec(32, 0, ScaleRule::kSearch),
    nvfp4_spec(64, ScaleRule::kAbsmax),
    nvfp4_spec(0, ScaleRule::kSearch),
};
constexpr int64_t kRows = 70, kCols = 320;  // ragged tiles of rows

template <class T>
int64_t differing(const std::vector<T>& a, const std::vector<T>& b) {
  EXPECT_EQ(a.size(), b.size());
  int64_t count = 0;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) count += a[i] != b[i];
  return count;
}

// Without error feedback there are no sums but a search's, which have one order: the same bits.
TEST(DeviceQuantizer, RoundingIsTheHosts) {
  const std::vector<float> w = random_weights(kRows * kCols, 1);
  std::vector<float> importance = random_weights(kCols, 2);
  for (float& v : importance) v *= v;
  for (const WeightQuantSpec& spec : kSpecs) {
    SCOPED_TRACE(describe(spec.format));
    const PackedLinear want = quantize_weights(w, kRows, kCols, spec, nullptr, importance);
    const PackedLinear got = device()
                                 .quantize({.weights = w,
                                            .rows = kRows,
                                            .cols = kCols,
                                            .spec = spec,
                                            .importance = importance})
                                 .value();
    EXPECT_EQ(got.codes, want.codes);
    EXPECT_EQ(got.scales, want.scales);
    EXPECT_EQ(got.group_scales, want.group_scales);
    EXPECT_EQ(got.group_zeros, want.group_zeros);
    EXPECT_EQ(got.row_scales, want.row_scales);
    EXPECT_EQ(got.outlier_codes, want.outlier_codes);
    EXPECT_EQ(got.outlier_scales, want.outlier_scales);
    EXPECT_EQ(got.outlier_values, want.outlier_values);
  }
}

// Sums over a block of columns are added in another order, and the factor differs in its last bits:
// a weight near the middle between two codes may take the other one, and its row go on from there.
TEST(DeviceQuantizer, GptqIsTheHosts) {
  const std::vector<float> w = random_weights(kRows * kCols, 3), h = gram_of_inputs(kCols, 4);
  const auto gram = on_device(h, kCols);
  const GptqFactor factor = factor_hessian(h, kCols, 0.01).value();
  const auto on_gpu = device().factor({.gram = gram.get(), .damping = 0.01}).value();
  for (const WeightQuantSpec& spec : kSpecs) {
    SCOPED_TRACE(describe(spec.format));
    const PackedLinear want = quantize_weights(w, kRows, kCols, spec, &factor);
    const PackedLinear got =
        device()
            .quantize(
                {.weights = w, .rows = kRows, .cols = kCols, .spec = spec, .factor = on_gpu.get()})
            .value();
    ASSERT_TRUE(validate(got).ok()) << validate(got).message();
    const auto codes = static_cast<int64_t>(want.codes.size());
    EXPECT_LE(differing(got.codes, want.codes), codes / 200);
    EXPECT_LE(differing(got.scales, want.scales), std::ssize(want.scales) / 50);
    EXPECT_LE(differing(got.group_scales, want.group_scales), std::ssize(want.group_scales) / 50);
    EXPECT_EQ(got.row_scales, want.row_scales);
    for (size_t i = 0; i < want.outlier_codes.size(); ++i) {
      ASSERT_NEAR(got.outlier_codes[i], want.outlier_codes[i], 2);
    }
  }
}

// The order of channels and their divisors are applied on the way to the factor.
TEST(DeviceQuantizer, FactorOfChannelsInAnotherOrder) {
  constexpr int64_t k = 200;
  const std::vector<float> h = gram_of_inputs(k, 5);
  std::vector<int32_t> order(k);
  std::vector<float> divisors(k);
  for (int64_t i = 0; i < k; ++i) {
    order[static_cast<size_t>(i)] = static_cast<int32_t>((i * 77 + 5) % k);
    divisors[static_cast<size_t>(i)] = 0.5f + static_cast<float>(i % 7);
  }
  std::vector<float> moved(h.size()), lower = h;
  for (size_t i = 0; i < k; ++i) {
    for (size_t j = 0; j < k; ++j) {
      const auto a = static_cast<size_t>(order[i]), b = static_cast<size_t>(order[j]);
      moved[i * k + j] = h[a * k + b] / (divisors[a] * divisors[b]);
      if (j > i) lower[i * k + j] = std::nanf("");  // nobody reads it
    }
  }
  const auto gram = on_device(lower, k);
  const auto got =
      device()
          .factor({.gram = gram.get(), .order = order, .divisors = divisors, .damping = 0.01})
          .value();
  const GptqFactor want = factor_hessian(moved, k, 0.01).value();
  const std::vector<float> w = random_weights(40 * k, 6);
  const WeightQuantSpec spec = spec_of(kTwoLevel, 8, 0, 4, ScaleRule::kSearch);
  const PackedLinear expected = quantize_weights(w, 40, k, spec, &want);
  const PackedLinear packed =
      device()
          .quantize({.weights = w, .rows = 40, .cols = k, .spec = spec, .factor = got.get()})
          .value();
  EXPECT_LE(differing(packed.codes, expected.codes), std::ssize(expected.codes) / 200);
}

TEST(DeviceQuantizer, RefusesAHessianThatCannotBeFactored) {
  std::vector<float> h = {1, 2, 2, 1};  // eigenvalues 3 and -1
  const Status want = factor_hessian(h, 2, 0.01).status();
  EXPECT_EQ(device().factor({.gram = on_device(h, 2).get(), .damping = 0.01}).status().message(),
            want.message());
  h[0] = std::nanf("");
  EXPECT_EQ(device().factor({.gram = on_device(h, 2).get(), .damping = 0.01}).status().message(),
            factor_hessian(h, 2, 0.01).status().message());
}

TEST(DeviceQuantizer, ChannelsNeverActiveAreHarmless) {
  constexpr int64_t k = 64;
  std::vector<float> h = gram_of_inputs(k, 7);
  for (size_t i = 0; i < k; ++i) h[i * k + 9] = h[9 * k + i] = 0;
  const auto factor = device().factor({.gram = on_device(h, k).get(), .damping = 0.01}).value();
  const std::vector<float> w = random_weights(40 * k, 8);
  const PackedLinear p = device()
                             .quantize({.weights = w,
                                        .rows = 40,
                                        .cols = k,
                                        .spec = spec_of(kTwoLevel, 32, 32, 4, ScaleRule::kSearch),
                                        .factor = factor.get()})
                             .value();
  EXPECT_TRUE(validate(p).ok()) << validate(p).message();
}

TEST(DeviceQuantizer, ClearColumnsAndDiagonal) {
  constexpr int64_t k = 33;
  const auto tensor = on_device(random_weights(k * k, 9), k);
  std::vector<float> all(k * k), diagonal(k);
  gpu().read(*tensor, k, all);
  device().read_diagonal(*tensor, diagonal);
  for (size_t i = 0; i < k; ++i) EXPECT_EQ(diagonal[i], all[i * k + i]);
  std::vector<float> columns(20 * 7);
  device().read_columns(*tensor, 20, 11, 7, columns);
  for (size_t i = 0; i < columns.size(); ++i) EXPECT_EQ(columns[i], all[i / 7 * k + 11 + i % 7]);
  device().clear(*tensor);
  gpu().read(*tensor, k, all);
  for (const float v : all) EXPECT_EQ(v, 0.0f);
}

}  // namespace
}  // namespace atom
