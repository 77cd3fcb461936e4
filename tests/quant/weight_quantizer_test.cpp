#include "quant/weight_quantizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <string>

#include "base/parallel.h"
#include "base/random.h"
#include "tensor/packing.h"

namespace atom {
namespace {

struct Golden {
  int64_t n, k, group, outliers;
  double clip, damp;
  std::map<std::string, std::vector<float>> arrays;
};

Golden read_golden() {
  std::ifstream in(ATOM_TEST_DATA "/quant/gptq_64.txt");
  Golden g;
  in >> g.n >> g.k >> g.group >> g.outliers >> g.clip >> g.damp;
  const int64_t body = g.k - g.outliers;
  for (const auto& [name, size] : {std::pair{"weights", g.n * g.k},
                                   {"hessian", g.k * g.k},
                                   {"codes", g.n * body},
                                   {"scales", g.n * (body / g.group)},
                                   {"outlier_codes", g.n * g.outliers},
                                   {"outlier_scales", g.n}}) {
    std::string found;
    in >> found;
    EXPECT_EQ(found, name);
    std::vector<float>& array = g.arrays[name];
    array.resize(static_cast<size_t>(size));
    for (float& v : array) in >> v;
  }
  EXPECT_TRUE(in.good() || in.eof());
  return g;
}

WeightQuantSpec grouped(int64_t group, int64_t outliers, int bits = 4) {
  WeightQuantSpec spec;
  spec.format.weight = {.kind = WeightKind::kGrouped,
                        .bits = bits,
                        .group = group,
                        .outliers = outliers,
                        .outlier_kind = outliers == 0 ? OutlierKind::kNone : OutlierKind::kInt8};
  return spec;
}

WeightQuantSpec fp4(int64_t group, int64_t outliers, ScaleRule rule = ScaleRule::kAbsmax) {
  WeightQuantSpec spec = grouped(group, outliers);
  spec.format.weight.grid = CodeGrid::kE2M1;
  spec.scale_rule = rule;
  return spec;
}

WeightQuantSpec nvfp4(int64_t outliers, ScaleRule rule = ScaleRule::kAbsmax) {
  WeightQuantSpec spec = fp4(16, outliers, rule);
  spec.format.weight.scales = GroupScales::kE4M3;
  return spec;
}

WeightQuantSpec two_level(int64_t group, int64_t outliers) {
  WeightQuantSpec spec = grouped(group, outliers);
  spec.format.weight.kind = WeightKind::kTwoLevel;
  spec.scale_rule = ScaleRule::kSearch;
  return spec;
}

std::vector<float> random_weights(int64_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> w(static_cast<size_t>(count));
  for (float& v : w) v = static_cast<float>(random.normal() * 0.05);
  return w;
}

// Gram matrix of correlated inputs, a few channels of them large.
std::vector<float> random_hessian(int64_t k, uint64_t seed) {
  Random random(seed);
  const int64_t samples = 2 * k;
  std::vector<double> x(static_cast<size_t>(samples * k));
  for (int64_t t = 0; t < samples; ++t) {
    const double common = random.normal();
    for (int64_t i = 0; i < k; ++i) {
      x[static_cast<size_t>(t * k + i)] = (random.normal() + common) * (i % 17 == 0 ? 10 : 1);
    }
  }
  std::vector<float> h(static_cast<size_t>(k * k));
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      double sum = 0;
      for (int64_t t = 0; t < samples; ++t) {
        sum += x[static_cast<size_t>(t * k + i)] * x[static_cast<size_t>(t * k + j)];
      }
      h[static_cast<size_t>(i * k + j)] = static_cast<float>(sum);
    }
  }
  return h;
}

// tr((W - Q) H (W - Q)^T): the output error that GPTQ minimises.
double output_error(const std::vector<float>& w, const PackedLinear& packed,
                    const std::vector<float>& h) {
  std::vector<double> q(w.size());
  dequantize(packed, q);
  double total = 0;
  const int64_t k = packed.cols;
  for (int64_t n = 0; n < packed.rows; ++n) {
    for (int64_t i = 0; i < k; ++i) {
      const double di = w[static_cast<size_t>(n * k + i)] - q[static_cast<size_t>(n * k + i)];
      for (int64_t j = 0; j < k; ++j) {
        const double dj = w[static_cast<size_t>(n * k + j)] - q[static_cast<size_t>(n * k + j)];
        total += di * dj * h[static_cast<size_t>(i * k + j)];
      }
    }
  }
  return total;
}

TEST(Gptq, EqualsTheFormulasInNumPy) {
  const Golden g = read_golden();
  const GptqFactor factor = factor_hessian(g.arrays.at("hessian"), g.k, g.damp).value();
  WeightQuantSpec spec = grouped(g.group, g.outliers);
  spec.clip = static_cast<float>(g.clip);
  const PackedLinear p = quantize_weights(g.arrays.at("weights"), g.n, g.k, spec, &factor);
  ASSERT_TRUE(validate(p).ok()) << validate(p).message();
  const int64_t body = g.k - g.outliers;
  int64_t differing = 0;
  for (int64_t n = 0; n < g.n; ++n) {
    for (int64_t k = 0; k < body; ++k) {
      differing += signed_nibble(p.codes.data() + n * body / 2, k) !=
                   static_cast<int>(g.arrays.at("codes")[static_cast<size_t>(n * body + k)]);
    }
    for (int64_t k = 0; k < g.outliers; ++k) {
      const auto i = static_cast<size_t>(n * g.outliers + k);
      EXPECT_NEAR(p.outlier_codes[i], g.arrays.at("outlier_codes")[i], 1);
    }
    EXPECT_NEAR(f16_to_f32(p.outlier_scales[static_cast<size_t>(n)]),
                g.arrays.at("outlier_scales")[static_cast<size_t>(n)], 1e-4);
  }
  // Codes may differ only where float and double round a tie apart; a row that parts ways stays
  // apart, so a handful are allowed for.
  EXPECT_LE(differing, 6);
}

TEST(Gptq, FactorReproducesTheInverse) {
  const int64_t k = 48;
  const std::vector<float> h = random_hessian(k, 3);
  const GptqFactor f = factor_hessian(h, k, 0.01).value();
  double mean = 0;
  for (int64_t i = 0; i < k; ++i)
    mean += h[static_cast<size_t>(i * k + i)] / static_cast<double>(k);
  // (H + damp I) U^T U must be the identity.
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      double sum = 0;
      for (int64_t m = 0; m < k; ++m) {
        double inverse = 0;  // (U^T U)[m][j]
        for (int64_t l = 0; l <= std::min(m, j); ++l) {
          inverse += static_cast<double>(f.upper[static_cast<size_t>(l * k + m)]) *
                     f.upper[static_cast<size_t>(l * k + j)];
        }
        const double damped = h[static_cast<size_t>(i * k + m)] + (i == m ? 0.01 * mean : 0.0);
        sum += damped * inverse;
      }
      EXPECT_NEAR(sum, i == j ? 1.0 : 0.0, 2e-3) << i << "," << j;
    }
  }
}

TEST(Gptq, RefusesAHessianThatCannotBeFactored) {
  std::vector<float> h = {1, 2, 2, 1};  // eigenvalues 3 and -1
  EXPECT_EQ(factor_hessian(h, 2, 0.01).status().code(), ErrorCode::kInvalidArgument);
  h[0] = std::nanf("");
  EXPECT_FALSE(factor_hessian(h, 2, 0.01).ok());
}

TEST(Gptq, ChannelsNeverActiveAreHarmless) {
  const int64_t k = 64;
  std::vector<float> h = random_hessian(k, 5);
  for (int64_t i = 0; i < k; ++i)
    h[static_cast<size_t>(i * k + 9)] = h[static_cast<size_t>(9 * k + i)] = 0;
  const GptqFactor f = factor_hessian(h, k, 0.01).value();
  const std::vector<float> w = random_weights(40 * k, 6);
  const PackedLinear p = quantize_weights(w, 40, k, two_level(32, 32), &f);
  EXPECT_TRUE(validate(p).ok()) << validate(p).message();
}

class EveryGrid : public ::testing::TestWithParam<WeightQuantSpec> {};

TEST_P(EveryGrid, GptqBeatsRoundingAndBothAreValid) {
  const WeightQuantSpec& spec = GetParam();
  const int64_t n = 70, k = 320;  // a ragged last chunk of rows
  const std::vector<float> w = random_weights(n * k, 1), h = random_hessian(k, 2);
  const GptqFactor f = factor_hessian(h, k, 0.01).value();
  const PackedLinear rounded = quantize_weights(w, n, k, spec, nullptr);
  const PackedLinear gptq = quantize_weights(w, n, k, spec, &f);
  ASSERT_TRUE(validate(rounded).ok()) << validate(rounded).message();
  ASSERT_TRUE(validate(gptq).ok()) << validate(gptq).message();
  EXPECT_LT(output_error(w, gptq, h), 0.6 * output_error(w, rounded, h));
}

TEST_P(EveryGrid, DoesNotDependOnTheNumberOfThreads) {
  const WeightQuantSpec& spec = GetParam();
  const int64_t n = 200, k = 320;
  const std::vector<float> w = random_weights(n * k, 11), h = random_hessian(k, 12);
  const GptqFactor f = factor_hessian(h, k, 0.01).value();
  set_thread_count(1);
  const PackedLinear one = quantize_weights(w, n, k, spec, &f);
  set_thread_count(3);
  const PackedLinear three = quantize_weights(w, n, k, spec, &f);
  set_thread_count(0);
  EXPECT_EQ(one.codes, three.codes);
  EXPECT_EQ(one.scales, three.scales);
  EXPECT_EQ(one.group_scales, three.group_scales);
  EXPECT_EQ(one.group_zeros, three.group_zeros);
  EXPECT_EQ(one.outlier_codes, three.outlier_codes);
}

INSTANTIATE_TEST_SUITE_P(Formats, EveryGrid,
                         ::testing::Values(grouped(64, 64), grouped(32, 32), grouped(0, 0),
                                           grouped(0, 64, 8), grouped(128, 64, 3), fp4(64, 64),
                                           fp4(32, 0, ScaleRule::kSearch), nvfp4(64),
                                           nvfp4(0, ScaleRule::kSearch), two_level(64, 64),
                                           two_level(32, 0), two_level(128, 64)));

TEST(ScaleSearch, IsNeverWorseThanAbsmax) {
  const int64_t n = 32, k = 256;
  const std::vector<float> w = random_weights(n * k, 21);
  std::vector<float> identity(static_cast<size_t>(k * k), 0.0f);
  for (int64_t i = 0; i < k; ++i) identity[static_cast<size_t>(i * k + i)] = 1.0f;
  WeightQuantSpec plain = grouped(64, 0), searched = plain;
  searched.scale_rule = ScaleRule::kSearch;
  EXPECT_LT(output_error(w, quantize_weights(w, n, k, searched, nullptr), identity),
            output_error(w, quantize_weights(w, n, k, plain, nullptr), identity));
}

// A weight's code is the grid's nearest under the group's scale, by which the peak is 12.
TEST(Rounding, E2M1) {
  const std::vector<float> w = {12.0f, -5.0f, 7.0f, 0.25f, -10.0f, 2.5f, -0.5f, 11.0f};
  const PackedLinear p = quantize_weights(w, 1, 8, fp4(8, 0), nullptr);
  EXPECT_EQ(f16_to_f32(p.scales[0]), 1.0f);
  std::vector<double> q(w.size());
  dequantize(p, q);
  EXPECT_EQ(q, (std::vector<double>{12, -4, 8, 0, -8, 2, 0, 12}));
  EXPECT_EQ(p.codes, (std::vector<uint8_t>{0xc7, 0x06, 0x2e, 0x70}));
}

// The row's largest weight, 13, leads to a unit of 2^-5; 13/12 is 34.7 of it, which 36 is nearest
// to, and 5/12 is 13.3, which 13 is.
TEST(Rounding, E4M3Scales) {
  WeightQuantSpec spec = nvfp4(0);
  spec.format.weight.group = 4;
  const std::vector<float> w = {13.0f, -5.0f, 0.25f, 9.0f, -5.0f, 2.5f, -0.5f, 0.1f};
  const PackedLinear p = quantize_weights(w, 1, 8, spec, nullptr);
  EXPECT_EQ(f16_to_f32(p.row_scales[0]), 0x1p-5f);
  EXPECT_EQ(e4m3_value(p.group_scales[0]), 36.0f);
  EXPECT_EQ(e4m3_value(p.group_scales[1]), 13.0f);
  std::vector<double> q(w.size());
  dequantize(p, q);
  EXPECT_EQ(q, (std::vector<double>{13.5, -4.5, 0, 9, -4.875, 2.4375, -0.40625, 0}));
}

TEST(Rounding, AllZeroAndHugeWeightsStayFinite) {
  std::vector<float> w(32 * 128, 0.0f);
  for (int64_t k = 0; k < 128; ++k) w[static_cast<size_t>(128 + k)] = 3e38f;   // past F16
  for (int64_t k = 0; k < 128; ++k) w[static_cast<size_t>(256 + k)] = 1e-30f;  // below F16
  for (const WeightQuantSpec& spec :
       {grouped(32, 32), fp4(32, 32), nvfp4(32), two_level(32, 32), grouped(0, 0, 8)}) {
    const PackedLinear p = quantize_weights(w, 32, 128, spec, nullptr);
    ASSERT_TRUE(validate(p).ok()) << validate(p).message();
    std::vector<double> q(w.size());
    dequantize(p, q);
    for (int64_t k = 0; k < 96; ++k) EXPECT_EQ(q[static_cast<size_t>(k)], 0.0);
  }
}

}  // namespace
}  // namespace atom
