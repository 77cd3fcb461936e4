// Quantization of activations: codes and scales are the same bits on every backend.
#include <algorithm>
#include <limits>

#include "base/parallel.h"
#include "ops/activation_cases.h"
#include "ops/numerics.h"

namespace atom {
namespace {

TEST(Quantize, CodesAreTheSameOnEveryBackend) {
  for (const LinearFormat& format : every_activation_format()) {
    SCOPED_TRACE(format_name(format));
    const int64_t channels = channels_of(format);
    const Matrix x = random_matrix(3, channels, 5);
    const std::vector<int32_t> perm = random_permutation(channels, 6);
    const HostActivations want = run_quantize(ref_backend(), format, x, perm);
    for (Backend* backend : other_backends()) {
      SCOPED_TRACE(backend->detail());
      expect_same(run_quantize(*backend, format, x, perm), want);
    }
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Quantize, DifficultRowsAreTheSameOnEveryBackend) {
  for (const LinearFormat& format : every_activation_format()) {
    if (format.weight.outliers == 5 || format.weight.group == 4) continue;  // as above
    SCOPED_TRACE(format_name(format));
    const Matrix x = difficult_rows(channels_of(format));
    const HostActivations want = run_quantize(ref_backend(), format, x, {});
    for (const float value : want.values) ASSERT_TRUE(std::isfinite(value));
    for (Backend* backend : other_backends()) {
      SCOPED_TRACE(backend->detail());
      expect_same(run_quantize(*backend, format, x, {}), want);
    }
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Quantize, ManyTokensAndWideRows) {
  for (const LinearFormat& format :
       {grouped_format(4, 128, 64, OutlierKind::kInt8, act_format(4, 128)),
        grouped_format(4, 32, 16, OutlierKind::kInt8,
                       act_format(4, 32, ActRule::kAsymmetric, 1.0f, true)),
        fp4_format(128, 64, OutlierKind::kInt8, fp4_acts(128, 0.9f)),
        two_level_format(128, 128, OutlierKind::kInt8, act_format(8, 0))}) {
    for (const int64_t tokens : {1, 17, 129}) {
      SCOPED_TRACE(fmt::format("{}: {}", format_name(format), tokens));
      const int64_t channels = 1536 + format.weight.outliers;
      const Matrix x = random_matrix(tokens, channels, 15);
      const std::vector<int32_t> perm = random_permutation(channels, 16);
      const HostActivations want = run_quantize(ref_backend(), format, x, perm);
      for (Backend* backend : all_backends()) {
        SCOPED_TRACE(backend->detail());
        for (const int threads : {1, 5}) {
          set_thread_count(threads);
          expect_same(run_quantize(*backend, format, x, perm), want);
        }
        set_thread_count(0);
      }
    }
  }
}

TEST(Quantize, WhatCodesStandForIsCodeTimesScale) {
  for (const LinearFormat& format :
       {grouped_format(4, 32, 16, OutlierKind::kInt8, act_format(4, 32, ActRule::kAsymmetric)),
        grouped_format(4, 32, 16, OutlierKind::kFloat, act_format(4, 32)), LinearFormat{}}) {
    SCOPED_TRACE(format_name(format));
    const Matrix x = random_matrix(17, 112, 5);
    const std::vector<int32_t> perm = random_permutation(112, 6);
    for (Backend* backend : all_backends()) {
      SCOPED_TRACE(backend->detail());
      const auto acts = make_acts(*backend, format, 112, 17);
      backend->quantize(*make_input(*backend, x), 17, perm, *acts);
      const HostActivations host = backend->read(*acts, 17);
      for (int64_t t = 0; t < 17; ++t) {
        for (int64_t k = 0; k < 112; ++k) {
          const auto i = static_cast<size_t>(t * 112 + k);
          const float source = x.at(t, perm[static_cast<size_t>(k)]);
          const bool outlier = k >= 112 - format.weight.outliers;
          if (!format.act.quantized) {
            ASSERT_EQ(host.values[i], source);
          } else if (outlier && format.weight.outlier_kind == OutlierKind::kFloat) {
            ASSERT_EQ(host.values[i], source);
            ASSERT_EQ(host.codes[i], 0);
          } else {
            const float scale = outlier ? host.outlier_scales[static_cast<size_t>(t)]
                                        : host.scales[static_cast<size_t>(t * 3 + k / 32)];
            ASSERT_EQ(host.values[i], static_cast<float>(host.codes[i]) * scale);
            ASSERT_LE(std::abs(host.values[i] - source), 0.5001f * scale);
          }
        }
      }
      const auto out = make_output(*backend, 17, 112);
      backend->dequantize(*acts, 17, *out);
      expect_same(read_output(*backend, *out, 17).values, host.values);
    }
  }
}

// Small enough to work out by hand: body in groups of 4, then two outliers.
TEST(Quantize, KnownCodes) {
  struct Known {
    ActFormat act;
    std::vector<float> x;
    std::vector<int> codes;
    std::vector<float> scales;
    float outlier_scale;
  };
  const Known cases[] = {
      // Ties go to even codes; a group of zeros has scale 0.
      {act_format(4, 4),
       {7.0f, 2.5f, -3.5f, 0.5f, 0.0f, 0.0f, 0.0f, 0.0f, 127.0f, -63.5f},
       {7, 2, -4, 0, 0, 0, 0, 0, 127, -64},
       {1.0f, 0.0f},
       1.0f},
      // A clip of one half saturates the largest: at 7 above and at -8 below.
      {act_format(4, 4, ActRule::kSymmetric, 0.5f),
       {14.0f, 3.0f, 0.0f, 1.0f, -14.0f, 4.0f, 0.0f, -8.0f, 0.0f, 0.0f},
       {7, 3, 0, 1, -8, 4, 0, -8, 0, 0},
       {1.0f, 1.0f},
       0.0f},
      // The largest magnitude lands on -8, by a negative scale where it is positive.
      {act_format(4, 4, ActRule::kSigned),
       {8.0f, -7.0f, 1.0f, 2.0f, -16.0f, 14.0f, 3.0f, 1.0f, 254.0f, 0.0f},
       {-8, 7, -1, -2, -8, 7, 2, 0, 127, 0},
       {-1.0f, 2.0f},
       2.0f},
      // The stored code is q - zero: from 0 for a positive group, down to -15 for a negative one.
      {act_format(4, 4, ActRule::kAsymmetric),
       {15.0f, 0.0f, 7.5f, 6.5f, -15.0f, -1.0f, -3.0f, -2.5f, 0.0f, 0.0f},
       {15, 0, 8, 6, -15, -1, -3, -2, 0, 0},
       {1.0f, 1.0f},
       0.0f},
      {act_format(4, 4, ActRule::kAsymmetric),
       {10.0f, -5.0f, 0.0f, 1.0f, 3.0f, 6.0f, 30.0f, 7.0f, 0.0f, 0.0f},
       {10, -5, 0, 1, 2, 3, 15, 4, 0, 0},
       {1.0f, 2.0f},
       0.0f},
      // E2M1: the grid's steps are 1 up to 4, then 2, then 4; ties go to even mantissas.
      {fp4_acts(4),
       {12.0f, 5.0f, -7.0f, 10.0f, -24.0f, 5.0f, -3.0f, 1.0f, 0.0f, 0.0f},
       {12, 4, -8, 8, -12, 2, -2, 0, 0, 0},
       {1.0f, 2.0f},
       0.0f},
      // E4M3: 13 leads to a unit of 2^-8 and a scale of 277.3 units, which 288 is nearest to; 5 to
      // 106.67 and 104.
      {nvfp4_acts(4),
       {13.0f, 1.0f, -7.0f, 4.5f, 5.0f, -3.0f, 0.5f, 0.1f, 0.0f, 0.0f},
       {12, 1, -6, 4, 12, -8, 1, 0, 0, 0},
       {288.0f / 256, 104.0f / 256},
       0.0f},
      // What is too small beside the rest of its token is zero.
      {nvfp4_acts(4),
       {16.0f, 8.0f, 0.0f, 0.0f, 0x1p-14f, 0.0f, 0x1p-14f, 0.0f, 0.0f, 0.0f},
       {12, 6, 0, 0, 0, 0, 0, 0, 0, 0},
       {176.0f / 128, 0.0f},
       0.0f},
      {act_format(3, 4),
       {3.0f, -3.0f, 1.5f, 2.5f, 6.0f, 1.0f, 3.0f, -6.0f, 0.0f, 0.0f},
       {3, -3, 2, 2, 3, 0, 2, -3, 0, 0},
       {1.0f, 2.0f},
       0.0f},
  };
  for (const Known& known : cases) {
    const LinearFormat format = grouped_format(4, 4, 2, OutlierKind::kInt8, known.act);
    SCOPED_TRACE(format_name(format));
    Matrix x(1, 10);
    x.values = known.x;
    for (Backend* backend : all_backends()) {
      SCOPED_TRACE(backend->detail());
      const HostActivations got = run_quantize(*backend, format, x, {});
      EXPECT_EQ(std::vector<int>(got.codes.begin(), got.codes.end()), known.codes);
      EXPECT_EQ(got.scales, known.scales);
      EXPECT_EQ(got.outlier_scales, std::vector<float>{known.outlier_scale});
    }
  }
}

// Not finite numbers come from broken models: they may cost their token, never the process.
TEST(Quantize, NonFiniteValuesDoNoHarm) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const LinearFormat& format : every_activation_format()) {
    if (!format.act.quantized) continue;
    SCOPED_TRACE(format_name(format));
    Matrix x = random_matrix(6, channels_of(format), 5);
    for (int64_t k = 0; k < x.cols; k += 3) {
      x.at(0, k) = kInf;
      x.at(1, k) = -kInf;
      x.at(2, k) = kNan;
      x.at(3, k + 1 < x.cols ? k + 1 : k) = kNan;
      x.at(4, k) = k % 2 == 0 ? kInf : -kInf;
    }
    const Matrix last = [&] {
      Matrix row(1, x.cols);
      std::ranges::copy(x.row(5), row.values.begin());
      return row;
    }();
    for (Backend* backend : all_backends()) {
      SCOPED_TRACE(backend->detail());
      const HostActivations all = run_quantize(*backend, format, x, {});
      const HostActivations alone = run_quantize(*backend, format, last, {});
      ASSERT_TRUE(std::equal(alone.codes.begin(), alone.codes.end(),
                             all.codes.end() - static_cast<int64_t>(alone.codes.size())));
    }
  }
}

// What a linear that gates hands on.
TEST(Quantize, CodesOfHalvesAreTheSameOnEveryBackend) {
  for (const LinearFormat& format : every_activation_format()) {
    SCOPED_TRACE(format_name(format));
    const int64_t channels = channels_of(format);
    const Matrix x = halves_of(difficult_rows(channels));
    const auto run_copy = [&](Backend& backend) {
      return filled(backend, format, channels, x.rows, [&](Activations& acts) {
        const auto input = make_input(backend, x, Precision::kHalf);
        backend.quantize(*input, x.rows, {}, acts);
      });
    };
    const HostActivations want = run_copy(ref_backend());
    for (Backend* backend : other_backends()) {
      SCOPED_TRACE(backend->detail());
      expect_same(run_copy(*backend), want);
    }
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace atom
