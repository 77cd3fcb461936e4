// Integer and float linears of the CPU backend against the product of the dequantized operands in
// double, and against one another bit for bit where the arithmetic is the same.
#include <gtest/gtest.h>

#include <limits>

#include "backend/cpu/cpu_backend.h"
#include "cpu/random_linear.h"

namespace atom {
namespace {

using test::nmse;
using test::random_floats;
using test::random_linear;

struct Case {
  const char* name;
  LinearFormat format;
  int64_t rows, cols;
};

LinearFormat make_format(WeightKind kind, int bits, int64_t group, int64_t outliers,
                         OutlierKind outlier_kind, int act_bits, int64_t act_group,
                         ActRule rule = ActRule::kSymmetric) {
  LinearFormat format;
  format.weight = {kind, DType::kF32, bits, group, outliers, outlier_kind};
  format.act = {.quantized = act_bits != 0, .bits = act_bits, .group = act_group, .rule = rule};
  if (act_bits == 0) format.act = {};
  return format;
}

const Case kCases[] = {
    {"two_level", make_format(WeightKind::kTwoLevel, 4, 128, 64, OutlierKind::kInt8, 8, 0), 96,
     576},
    {"two_level_o128", make_format(WeightKind::kTwoLevel, 4, 128, 128, OutlierKind::kInt8, 8, 0),
     41, 1536},
    {"two_level_plain", make_format(WeightKind::kTwoLevel, 4, 32, 0, OutlierKind::kNone, 8, 0), 17,
     96},
    {"two_level_signed",
     make_format(WeightKind::kTwoLevel, 4, 64, 20, OutlierKind::kInt8, 8, 0, ActRule::kSigned), 33,
     340},
    {"two_level_odd_group",
     make_format(WeightKind::kTwoLevel, 4, 12, 5, OutlierKind::kInt8, 4, 0, ActRule::kAsymmetric),
     19, 41},
    {"two_level_float_outliers",
     make_format(WeightKind::kTwoLevel, 4, 64, 7, OutlierKind::kFloat, 8, 0), 19, 135},
    {"w4a4_g128", make_format(WeightKind::kGrouped, 4, 128, 64, OutlierKind::kInt8, 4, 128), 96,
     576},
    {"w4a4_g32_asymmetric",
     make_format(WeightKind::kGrouped, 4, 32, 16, OutlierKind::kInt8, 4, 32, ActRule::kAsymmetric),
     50, 592},
    {"w4a4_g32_signed",
     make_format(WeightKind::kGrouped, 4, 32, 32, OutlierKind::kInt8, 4, 32, ActRule::kSigned), 50,
     576},
    {"w4a8_per_token", make_format(WeightKind::kGrouped, 4, 128, 0, OutlierKind::kNone, 8, 0), 64,
     512},
    {"w4a4_g4", make_format(WeightKind::kGrouped, 4, 4, 0, OutlierKind::kNone, 4, 4), 20, 44},
    {"w4a4_g8", make_format(WeightKind::kGrouped, 4, 8, 4, OutlierKind::kInt8, 4, 8), 20, 44},
    {"w3a3", make_format(WeightKind::kGrouped, 3, 128, 64, OutlierKind::kInt8, 3, 128), 32, 320},
    {"w8a8", make_format(WeightKind::kGrouped, 8, 0, 0, OutlierKind::kNone, 8, 0), 80, 576},
    {"w8a8_signed",
     make_format(WeightKind::kGrouped, 8, 0, 0, OutlierKind::kNone, 8, 0, ActRule::kSigned), 31,
     132},
    {"w8a8_g32", make_format(WeightKind::kGrouped, 8, 32, 0, OutlierKind::kNone, 8, 32), 100, 576},
    {"w4_rows", make_format(WeightKind::kGrouped, 4, 0, 4, OutlierKind::kInt8, 4, 0), 31, 136},
    {"w4a4_float_outliers",
     make_format(WeightKind::kGrouped, 4, 64, 24, OutlierKind::kFloat, 4, 64), 31, 216},
    {"w4a16", make_format(WeightKind::kGrouped, 4, 128, 0, OutlierKind::kNone, 0, 0), 70, 256},
    {"w4a16_two_level", make_format(WeightKind::kTwoLevel, 4, 128, 8, OutlierKind::kInt8, 0, 0), 70,
     264},
    {"f32", {{.dtype = DType::kF32}, {}}, 200, 576},
    {"f16", {{.dtype = DType::kF16}, {}}, 200, 31},
    {"bf16", {{.dtype = DType::kBF16}, {}}, 3, 576},
};

std::vector<CpuIsa> isas_here() {
  std::vector<CpuIsa> found;
  for (const CpuIsa isa : kAllCpuIsas) {
    if (make_cpu_backend({.isa = isa}).ok()) found.push_back(isa);
  }
  return found;
}

class LinearTest : public testing::TestWithParam<Case> {};

// Activations with large values at both ends, so that extreme codes meet extreme weights.
std::vector<float> input(int64_t tokens, int64_t cols) {
  std::vector<float> x = random_floats(tokens * cols, 7);
  for (size_t i = 0; i < x.size(); i += 5) x[i] = x[i] > 0 ? 3.0f : -3.0f;
  for (int64_t k = 0; k < cols; ++k) x[static_cast<size_t>(k)] = -2.0f;
  return x;
}

TEST_P(LinearTest, EqualsTheProductOfWhatOperandsStandFor) {
  const Case& c = GetParam();
  ASSERT_TRUE(validate(c.format, c.cols).ok()) << validate(c.format, c.cols).message();
  const PackedLinear packed = random_linear(c.format, c.rows, c.cols, c.rows % 2 == 1, 3);
  ASSERT_TRUE(validate(packed).ok()) << validate(packed).message();
  std::vector<double> weights(static_cast<size_t>(c.rows * c.cols));
  dequantize(packed, weights);
  for (const CpuIsa isa : isas_here()) {
    auto backend = make_cpu_backend({.isa = isa}).value();
    auto w = backend->load_linear(packed).value();
    for (const int64_t tokens : {1, 2, 3, 5, 16, 17, 67}) {
      auto x = backend->make_tensor(tokens, c.cols).value();
      auto y = backend->make_tensor(tokens, c.rows).value();
      auto acts = backend->make_activations(c.format, c.cols, tokens).value();
      backend->write(*x, input(tokens, c.cols));
      backend->quantize(*x, tokens, {}, *acts);
      const HostActivations host = backend->read(*acts, tokens);
      std::vector<double> want(static_cast<size_t>(tokens * c.rows));
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t n = 0; n < c.rows; ++n) {
          double sum = packed.bias.empty() ? 0.0 : packed.bias[static_cast<size_t>(n)];
          for (int64_t k = 0; k < c.cols; ++k) {
            sum += host.values[static_cast<size_t>(t * c.cols + k)] *
                   weights[static_cast<size_t>(n * c.cols + k)];
          }
          want[static_cast<size_t>(t * c.rows + n)] = sum;
        }
      }
      std::vector<float> got(want.size(), std::numeric_limits<float>::quiet_NaN());
      backend->write(*y, got);
      backend->linear({.x = acts.get(), .w = w.get(), .y = y.get(), .tokens = tokens});
      backend->read(*y, tokens, got);
      // Float scales and sums in float: a few ulp a group.
      EXPECT_LT(nmse(got, want), 1e-12) << backend->detail() << " tokens " << tokens;
      backend->linear(
          {.x = acts.get(), .w = w.get(), .y = y.get(), .tokens = tokens, .accumulate = true});
      backend->read(*y, tokens, got);
      for (double& v : want) v *= 2;
      EXPECT_LT(nmse(got, want), 1e-12) << backend->detail() << " tokens " << tokens;
    }
  }
}

TEST_P(LinearTest, EmbeddingRowsAreTheDequantizedRows) {
  const Case& c = GetParam();
  const PackedLinear packed = random_linear(c.format, c.rows, c.cols, false, 3);
  std::vector<double> weights(static_cast<size_t>(c.rows * c.cols));
  dequantize(packed, weights);
  for (const CpuIsa isa : isas_here()) {
    auto backend = make_cpu_backend({.isa = isa}).value();
    auto w = backend->load_linear(packed).value();
    auto y = backend->make_tensor(c.rows, c.cols).value();
    std::vector<int32_t> ids(static_cast<size_t>(c.rows));
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
    backend->embed({.table = w.get(), .ids = ids}, *y);
    std::vector<float> got(weights.size());
    backend->read(*y, c.rows, got);
    for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], static_cast<float>(weights[i])) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, LinearTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(LinearTest, RefusesChannelsWhoseSumsCouldOverflow) {
  auto backend = make_cpu_backend({}).value();
  LinearFormat format = make_format(WeightKind::kGrouped, 8, 0, 0, OutlierKind::kNone, 8, 0);
  const auto loaded = backend->load_linear(random_linear(format, 1, 131072, false, 1));
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.status().code(), ErrorCode::kUnsupported);
  EXPECT_TRUE(backend->load_linear(random_linear(format, 1, 131068, false, 1)).ok());
}

}  // namespace
}  // namespace atom
