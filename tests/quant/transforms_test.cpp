#include "quant/transforms.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "quant/site_statistics.h"

namespace atom {
namespace {

std::vector<float> random_values(int64_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = static_cast<float>(random.normal());
  return values;
}

PackedLinear random_linear(int64_t rows, int64_t cols, uint64_t seed) {
  PackedLinear linear = make_float_linear(random_values(rows * cols, seed), rows, cols);
  linear.bias = random_values(rows, seed + 1000);
  return linear;
}

std::vector<double> product(const PackedLinear& linear, std::span<const float> x) {
  std::vector<double> y(linear.bias.begin(), linear.bias.end());
  for (size_t i = 0; i < linear.values.size(); ++i) {
    y[i / x.size()] += double{linear.values[i]} * x[i % x.size()];
  }
  return y;
}

void expect_close(std::span<const double> a, std::span<const double> b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-4) << i;
}

TEST(Balance, GivesActivationsAndWeightsTheSameShape) {
  const int64_t k = 24;
  const PackedLinear first = random_linear(5, k, 1), second = random_linear(7, k, 2);
  std::vector<float> energy = random_values(k, 3);
  for (float& e : energy) e = std::exp(3 * e);
  const std::vector<const PackedLinear*> linears = {&first, &second};
  const std::vector<float> factors = balance_factors(energy, linears, 1.0);
  double ratio = 0, logs = 0;
  for (int64_t c = 0; c < k; ++c) {
    double weights = 0;
    for (const PackedLinear* linear : linears) {
      for (int64_t n = 0; n < linear->rows; ++n) {
        weights += std::pow(linear->values[static_cast<size_t>(n * k + c)], 2);
      }
    }
    const double f = factors[static_cast<size_t>(c)];
    const double here = energy[static_cast<size_t>(c)] / (f * f) / (weights * f * f);
    if (c == 0) ratio = here;
    EXPECT_NEAR(here / ratio, 1, 1e-4);
    logs += std::log(f);
  }
  EXPECT_NEAR(logs, 0, 1e-5);
}

TEST(Balance, StrengthZeroAndDeadChannelsKeepOne) {
  PackedLinear linear = random_linear(4, 6, 1);
  for (int64_t n = 0; n < 4; ++n) linear.values[static_cast<size_t>(n * 6 + 5)] = 0;
  const std::vector<float> energy = {1, 100, 0, 3, 0.01f, 50};
  const std::vector<const PackedLinear*> linears = {&linear};
  for (const float f : balance_factors(energy, linears, 0.0)) EXPECT_EQ(f, 1.0f);
  const std::vector<float> factors = balance_factors(energy, linears, 0.5);
  EXPECT_EQ(factors[2], 1.0f);
  EXPECT_EQ(factors[5], 1.0f);
  EXPECT_GT(factors[1], factors[4]);
}

TEST(Balance, LeavesWhatTheLinearsCompute) {
  const int64_t k = 16;
  PackedLinear before = random_linear(k, 8, 1), after = random_linear(5, k, 2);
  const std::vector<float> x = random_values(8, 3);
  std::vector<float> factors = random_values(k, 4);
  for (float& f : factors) f = std::exp(f);
  const auto both = [&] {
    const std::vector<double> middle = product(before, x);
    return product(after, std::vector<float>(middle.begin(), middle.end()));
  };
  const std::vector<double> expected = both();
  divide_rows(before, factors);
  multiply_columns(after, factors);
  expect_close(both(), expected);
}

TEST(ValueHadamard, LeavesWhatTheLayerComputes) {
  ModelConfig config;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 8;
  PackedLayer layer;
  layer.v = random_linear(16, 12, 1);
  layer.o = random_linear(12, 32, 2);
  const std::vector<float> x = random_values(12, 3);
  // Attention to a single token hands its values on, one KV head to two query heads.
  const auto output = [&] {
    const std::vector<double> v = product(layer.v, x);
    std::vector<float> attended;
    for (size_t i = 0; i < 32; ++i) {
      attended.push_back(static_cast<float>(v[i / 8 / 2 * 8 + i % 8]));
    }
    return product(layer.o, attended);
  };
  const std::vector<double> expected = output();
  const std::vector<float> values = layer.v.values;
  fold_value_hadamard(layer, config);
  EXPECT_NE(layer.v.values, values);
  expect_close(output(), expected);
}

TEST(Order, IsByAscendingSalienceAndStable) {
  const std::vector<float> salience = {3, 1, 2, 1, 0};
  EXPECT_EQ(order_by_salience(salience), (std::vector<int32_t>{4, 1, 3, 2, 0}));
}

TEST(Statistics, FollowTheirInput) {
  const size_t k = 5, tokens = 9;
  const std::vector<float> x = random_values(tokens * k, 1);
  const std::vector<int32_t> perm = {3, 0, 4, 1, 2};
  const std::vector<float> factors = {1, 2, 0.5f, 4, 3};
  // channel i of the input is channel from(i) of x, divided by by(i)
  const auto statistics = [&](auto from, auto by) {
    SiteStatistics s;
    s.hessian.assign(k * k, 0.0f);
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t i = 0; i < k * k; ++i) {
        s.hessian[i] += x[t * k + from(i / k)] / by(i / k) * (x[t * k + from(i % k)] / by(i % k));
      }
    }
    for (size_t i = 0; i < k; ++i) s.energy.push_back(s.hessian[i * k + i]);
    return s;
  };
  const auto same = [](size_t i) { return i; };
  const auto permuted = [&](size_t i) { return static_cast<size_t>(perm[i]); };
  const auto one = [](size_t) { return 1.0f; };
  SiteStatistics s = statistics(same, one);
  s.divide(factors);
  s.permute(perm);
  const SiteStatistics expected =
      statistics(permuted, [&](size_t i) { return factors[permuted(i)]; });
  for (size_t i = 0; i < k * k; ++i) EXPECT_NEAR(s.hessian[i], expected.hessian[i], 1e-4);
  for (size_t i = 0; i < k; ++i) EXPECT_NEAR(s.energy[i], expected.energy[i], 1e-4);
}

}  // namespace
}  // namespace atom
