// The operators that make activations: codes and scales are the same bits on every backend.
#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "base/parallel.h"
#include "ops/numerics.h"
#include "ops/ops_fixture.h"

namespace atom {
namespace {

// Formats of activations with every rule, group, width and kind of outliers that validate allows.
std::vector<LinearFormat> activation_formats() {
  std::vector<LinearFormat> formats = {LinearFormat{}};
  formats.push_back(grouped_format(4, 32, 16, OutlierKind::kInt8));  // float activations
  struct Outliers {
    OutlierKind kind;
    int64_t count;
  };
  struct Choice {
    float clip;
    bool search;
  };
  for (const Outliers outliers :
       {Outliers{OutlierKind::kNone, 0}, Outliers{OutlierKind::kFloat, 5},
        Outliers{OutlierKind::kInt8, 5}, Outliers{OutlierKind::kInt8, 64}}) {
    for (const int64_t group : {0, 4, 32, 64, 128}) {
      for (const int bits : {3, 4, 8}) {
        for (const ActRule rule : {ActRule::kSymmetric, ActRule::kSigned, ActRule::kAsymmetric}) {
          if (rule == ActRule::kAsymmetric && bits == 8) continue;
          for (const Choice choice :
               {Choice{1.0f, false}, Choice{0.9f, false}, Choice{0.9f, true}}) {
            formats.push_back(
                grouped_format(4, group, outliers.count, outliers.kind,
                               act_format(bits, group, rule, choice.clip, choice.search)));
          }
        }
      }
      for (const Choice choice : {Choice{1.0f, false}, Choice{0.9f, false}, Choice{0.9f, true}}) {
        formats.push_back(fp4_format(group, outliers.count, outliers.kind,
                                     fp4_acts(group, choice.clip, choice.search)));
      }
    }
    for (const Choice choice : {Choice{1.0f, false}, Choice{0.9f, false}, Choice{0.9f, true}}) {
      for (const int64_t group : {0, 16, 64}) {
        formats.push_back(nvfp4_format(group, outliers.count, outliers.kind,
                                       nvfp4_acts(group, choice.clip, choice.search)));
      }
    }
  }
  return formats;
}

int64_t channels_of(const LinearFormat& format) {
  const WeightFormat& w = format.weight;
  return (w.group == 0 ? 172 : 2 * w.group) + w.outliers;
}

// Rows that are hard to quantize: each of a kind, repeated over the channels.
Matrix difficult_rows(int64_t channels) {
  constexpr float kDenormal = 1e-41f;
  const std::vector<std::vector<float>> kinds = {
      {0.0f},
      {-0.0f, 0.0f},
      {1.0f},
      {-1.0f},
      {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 5.0f},
      {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, -5.0f},
      {kDenormal, -kDenormal},
      {0x1p-100f, 0x1p-101f},       // the smallest group that counts
      {0x1.fffffep-101f},           // the largest that does not
      {0x1p120f, -0x1p119f, 1.0f},  // the largest group that counts
      {0x1.000002p120f, 1.0f},      // the smallest that does not
      {1e30f, -1e-30f, 1.0f},
      {0.5f, 1.5f, 2.5f, 3.5f, -0.5f, -1.5f, -2.5f, 7.0f},   // ties under scale 1
      {0.5f, 1.5f, 2.5f, 3.5f, -0.5f, -1.5f, -2.5f, -8.0f},  // ties under the signed rule
      {0.5f, 1.5f, 2.5f, 15.0f, 0.0f, 14.5f},                // ties of the asymmetric rule
      {0.5f, 1.5f, 2.5f, 3.5f, 5.0f, 7.0f, 10.0f, -12.0f},   // ties of E2M1
      {-0.5f, -1.5f, -2.5f, -3.5f, -5.0f, -7.0f, -10.0f, 12.0f},
      {3.0f, 4.0f, 5.0f},  // far from zero, one sign
      {-3.0f, -4.0f, -5.0f},
      {2.0f, -2.0f, 1.0f},  // both ends equal: the positive one decides the sign
      {127.0f, 126.5f, 0.5f, -127.5f, -63.5f},
  };
  Matrix m(static_cast<int64_t>(kinds.size()), channels);
  for (size_t i = 0; i < kinds.size(); ++i) {
    const std::span<float> row = m.row(static_cast<int64_t>(i));
    for (size_t k = 0; k < row.size(); ++k) row[k] = kinds[i][k % kinds[i].size()];
  }
  return m;
}

// Runs an op that fills `tokens` tokens of activations that held others before, and checks that the
// tokens behind kept theirs.
template <class Op>
HostActivations run(Backend& backend, const LinearFormat& format, int64_t channels, int64_t tokens,
                    const Op& op) {
  const int64_t all = tokens + kSentinelRows;
  const auto acts = make_acts(backend, format, channels, all);
  EXPECT_EQ(acts->channels(), channels);
  EXPECT_GE(acts->max_tokens(), all);
  EXPECT_EQ(acts->format(), format);
  backend.quantize(*make_input(backend, random_matrix(all, channels, 99)), all, {}, *acts);
  const HostActivations before = backend.read(*acts, all);
  op(*acts);
  const HostActivations after = backend.read(*acts, all);
  const auto tail = [&](const auto& array) {
    const auto per_token = static_cast<int64_t>(array.size()) / all;
    return std::vector(array.end() - kSentinelRows * per_token, array.end());
  };
  EXPECT_EQ(tail(before.codes), tail(after.codes)) << "tokens after the last one were written";
  EXPECT_EQ(tail(before.scales), tail(after.scales));
  EXPECT_EQ(tail(before.outlier_scales), tail(after.outlier_scales));
  EXPECT_EQ(tail(before.values), tail(after.values));
  return backend.read(*acts, tokens);
}

HostActivations run_quantize(Backend& backend, const LinearFormat& format, const Matrix& x,
                             std::span<const int32_t> perm) {
  return run(backend, format, x.cols, x.rows, [&](Activations& acts) {
    backend.quantize(*make_input(backend, x), x.rows, perm, acts);
  });
}

TEST(Quantize, CodesAreTheSameOnEveryBackend) {
  for (const LinearFormat& format : activation_formats()) {
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
  for (const LinearFormat& format : activation_formats()) {
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
  for (const LinearFormat& format : activation_formats()) {
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

// --- fused producers

TEST(RmsNormQuantize, CodesAreTheSameOnEveryBackend) {
  for (const LinearFormat& format : activation_formats()) {
    if (format.weight.group == 4) continue;
    SCOPED_TRACE(format_name(format));
    const int64_t channels = channels_of(format);
    Matrix x = random_matrix(3, channels, 25);
    std::ranges::fill(x.row(1), 0.0f);
    const std::vector<float> weight = random_weight(channels, 26);
    const std::vector<int32_t> perm = random_permutation(channels, 27);
    const auto run_norm = [&](Backend& backend) {
      return run(backend, format, channels, 3, [&](Activations& acts) {
        const auto input = make_input(backend, x);
        backend.rmsnorm_quantize({.x = input.get(), .weight = weight, .eps = 1e-5f, .tokens = 3},
                                 perm, acts);
      });
    };
    const HostActivations want = run_norm(ref_backend());
    for (Backend* backend : other_backends()) {
      SCOPED_TRACE(backend->detail());
      expect_same(run_norm(*backend), want);
    }
    if (testing::Test::HasFailure()) return;
  }
}

// The norm's float result is a fixed sequence of operations, so that it too is the same everywhere.
TEST(RmsNormQuantize, NormalisesThenPermutes) {
  const Matrix x = random_matrix(17, 100, 1);
  const std::vector<float> weight = random_weight(100, 2);
  const std::vector<int32_t> perm = random_permutation(100, 3);
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    const auto acts = make_acts(*backend, {}, 100, 17);
    const auto input = make_input(*backend, x);
    backend->rmsnorm_quantize({.x = input.get(), .weight = weight, .eps = 0.5f, .tokens = 17}, perm,
                              *acts);
    const HostActivations got = backend->read(*acts, 17);
    for (int64_t t = 0; t < 17; ++t) {
      double sum = 0;
      for (const double v : x.row(t)) sum += v * v;
      const float factor = numerics::rms_factor(x.row(t), 0.5f);
      ASSERT_NEAR(factor * std::sqrt(sum / 100 + 0.5), 1.0, 3e-7);
      for (int64_t k = 0; k < 100; ++k) {
        const int32_t source = perm[static_cast<size_t>(k)];
        ASSERT_EQ(got.values[static_cast<size_t>(t * 100 + k)],
                  x.at(t, source) * factor * weight[static_cast<size_t>(source)]);
      }
    }
  }
}

// What a linear that gates hands on.
TEST(Quantize, CodesOfHalvesAreTheSameOnEveryBackend) {
  for (const LinearFormat& format : activation_formats()) {
    SCOPED_TRACE(format_name(format));
    const int64_t channels = channels_of(format);
    const Matrix x = halves_of(difficult_rows(channels));
    const auto run_copy = [&](Backend& backend) {
      return run(backend, format, channels, x.rows, [&](Activations& acts) {
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

TEST(SiluMulQuantize, CodesAreTheSameOnEveryBackend) {
  for (const LinearFormat& format : activation_formats()) {
    if (format.weight.group == 4) continue;
    SCOPED_TRACE(format_name(format));
    const int64_t channels = channels_of(format);
    Matrix x = random_matrix(3, 2 * channels, 35);
    for (const float gate : {0.0f, -0.0f, 200.0f, -200.0f, 88.0f, -88.0f, 1e30f, -1e30f}) {
      x.at(1, static_cast<int64_t>(std::abs(gate)) % channels) = gate;
    }
    for (const Precision precision : {Precision::kFull, Precision::kHalf}) {
      const Matrix in = precision == Precision::kFull ? x : halves_of(x);
      const auto run_silu = [&](Backend& backend) {
        return run(backend, format, channels, 3, [&](Activations& acts) {
          const auto input = make_input(backend, in, precision);
          backend.silu_mul_quantize({.gate_up = input.get(), .tokens = 3}, acts);
        });
      };
      const HostActivations want = run_silu(ref_backend());
      for (Backend* backend : other_backends()) {
        SCOPED_TRACE(backend->detail());
        expect_same(run_silu(*backend), want);
      }
    }
    if (testing::Test::HasFailure()) return;
  }
}

// Inputs as wide as layers are, for which backends have kernels of their own; as many tokens as a
// GPU works through in several rounds where that is cheap. Of two-level linears, then of 4-bit
// groups.
TEST(WideInputs, CodesAreTheSameOnEveryBackend) {
  struct Wide {
    int64_t channels, outliers, tokens;
    float clip;
    int64_t group = 0;  // of the 4-bit activations
    ActRule rule = ActRule::kSymmetric;
    bool search = false;
  };
  for (const Wide w :
       {Wide{576, 64, 21, 1.0f}, Wide{1536, 0, 7, 0.9f}, Wide{2096, 16, 3, 1.0f},
        Wide{4096, 128, 5, 0.95f}, Wide{8192, 128, 3, 1.0f}, Wide{12288, 256, 3, 1.0f},
        Wide{14336, 128, 2, 0.9f}, Wide{11008, 128, 1, 1.0f}, Wide{1536, 0, 45, 1.0f},
        Wide{576, 64, 21, 0.9f, 128}, Wide{608, 32, 19, 1.0f, 32, ActRule::kAsymmetric, true},
        Wide{4096, 32, 3, 1.0f, 32, ActRule::kAsymmetric, true},
        Wide{1376, 160, 7, 1.0f, 64, ActRule::kSigned},
        Wide{1536, 0, 5, 1.0f, 64, ActRule::kAsymmetric, true},
        Wide{2208, 32, 5, 0.95f, 32, ActRule::kSigned}, Wide{11008, 128, 3, 0.9f, 128},
        Wide{11008, 256, 2, 0.9f, 256}}) {
    const OutlierKind kind = w.outliers > 0 ? OutlierKind::kInt8 : OutlierKind::kNone;
    const LinearFormat format =
        w.group == 0
            ? two_level_format(32, w.outliers, kind, act_format(8, 0, ActRule::kSymmetric, w.clip))
            : grouped_format(4, w.group, w.outliers, kind,
                             act_format(4, w.group, w.rule, w.clip, w.search));
    SCOPED_TRACE(fmt::format("{} channels: {}", w.channels, format_name(format)));
    const Matrix gate_up = halves_of(random_matrix(w.tokens, 2 * w.channels, 45));
    Matrix x(w.tokens, w.channels);
    for (int64_t t = 0; t < w.tokens; ++t) {
      std::copy_n(gate_up.row(t).begin(), w.channels, x.row(t).begin());
    }
    const Matrix difficult = difficult_rows(w.channels);
    for (int64_t t = 2; t < std::min(w.tokens, difficult.rows); ++t) {
      std::ranges::copy(difficult.row(t), x.row(t).begin());
    }
    const std::vector<float> weight = random_weight(w.channels, 46);
    const std::vector<int32_t> perm = random_permutation(w.channels, 47);
    using Op = std::function<void(Backend&, Activations&)>;
    const std::pair<const char*, Op> ops[] = {
        {"norm",
         [&](Backend& backend, Activations& acts) {
           const auto input = make_input(backend, x);
           backend.rmsnorm_quantize(
               {.x = input.get(), .weight = weight, .eps = 1e-5f, .tokens = w.tokens}, perm, acts);
         }},
        {"gather",
         [&](Backend& backend, Activations& acts) {
           backend.quantize(*make_input(backend, x), w.tokens, perm, acts);
         }},
        {"no gather",
         [&](Backend& backend, Activations& acts) {
           backend.quantize(*make_input(backend, x), w.tokens, {}, acts);
         }},
        {"halves",
         [&](Backend& backend, Activations& acts) {
           const auto input = make_input(backend, halves_of(x), Precision::kHalf);
           backend.quantize(*input, w.tokens, {}, acts);
         }},
        {"silu",
         [&](Backend& backend, Activations& acts) {
           const auto input = make_input(backend, gate_up, Precision::kHalf);
           backend.silu_mul_quantize({.gate_up = input.get(), .tokens = w.tokens}, acts);
         }},
    };
    for (const auto& [name, op] : ops) {
      SCOPED_TRACE(name);
      const auto run_op = [&](Backend& backend) {
        return run(backend, format, w.channels, w.tokens,
                   [&](Activations& acts) { op(backend, acts); });
      };
      const HostActivations want = run_op(ref_backend());
      for (Backend* backend : other_backends()) {
        SCOPED_TRACE(backend->detail());
        expect_same(run_op(*backend), want);
      }
    }
    if (testing::Test::HasFailure()) return;
  }
}

TEST(SiluMulQuantize, IsSiluOfTheGateTimesUp) {
  const Matrix x = random_matrix(17, 200, 1, false);
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    const auto acts = make_acts(*backend, {}, 100, 17);
    const auto input = make_input(*backend, x);
    backend->silu_mul_quantize({.gate_up = input.get(), .tokens = 17}, *acts);
    const HostActivations got = backend->read(*acts, 17);
    for (int64_t t = 0; t < 17; ++t) {
      for (int64_t k = 0; k < 100; ++k) {
        const double gate = x.at(t, k), up = x.at(t, 100 + k);
        const double want = gate / (1 + std::exp(-gate)) * up;
        // exp within 2.4e-7, then three roundings of 2^-24.
        ASSERT_NEAR(got.values[static_cast<size_t>(t * 100 + k)], want, 5e-7 * std::abs(want));
      }
    }
  }
}

// Inputs of linears that some backends keep as halves, in whatever order.
TEST(Halves, AreRefsFloatsRounded) {
  LinearFormat f16;
  f16.weight.dtype = DType::kF16;
  constexpr int64_t kTokens = 19;
  for (const LinearFormat& format : {f16, grouped_format(4, 128, 0, OutlierKind::kNone),
                                     grouped_format(4, 64, 0, OutlierKind::kNone),
                                     grouped_format(3, 32, 0, OutlierKind::kNone)}) {
    const int64_t channels = 4096 + format.weight.group;
    SCOPED_TRACE(format_name(format));
    const Matrix gate_up = halves_of(random_matrix(kTokens, 2 * channels, 55));
    const Matrix x = random_matrix(kTokens, channels, 56);
    const std::vector<float> weight = random_weight(channels, 57);
    const std::vector<int32_t> perm = random_permutation(channels, 58);
    const auto norm = [&](std::span<const int32_t> order) {
      return [&, order](Backend& backend, Activations& acts) {
        const auto input = make_input(backend, x);
        backend.rmsnorm_quantize(
            {.x = input.get(), .weight = weight, .eps = 1e-5f, .tokens = kTokens}, order, acts);
      };
    };
    const auto silu = [&](Precision precision) {
      return [&, precision](Backend& backend, Activations& acts) {
        const auto input = make_input(backend, gate_up, precision);
        backend.silu_mul_quantize({.gate_up = input.get(), .tokens = kTokens}, acts);
      };
    };
    using Op = std::function<void(Backend&, Activations&)>;
    const std::pair<const char*, Op> ops[] = {{"norm", norm({})},
                                              {"norm and gather", norm(perm)},
                                              {"copy",
                                               [&](Backend& backend, Activations& acts) {
                                                 backend.quantize(*make_input(backend, x), kTokens,
                                                                  {}, acts);
                                               }},
                                              {"silu", silu(Precision::kFull)},
                                              {"silu of halves", silu(Precision::kHalf)}};
    for (const auto& [name, op] : ops) {
      SCOPED_TRACE(name);
      const auto values = [&](Backend& backend) {
        Matrix y(kTokens, channels);
        y.values = run(backend, format, channels, kTokens, [&](Activations& acts) {
                     op(backend, acts);
                   }).values;
        return y;
      };
      const Matrix want = values(ref_backend());
      for (Backend* backend : other_backends()) {
        SCOPED_TRACE(backend->detail());
        expect_close(values(*backend), want, takes_halves(*backend, format) ? 0x1p-21 : 1e-12);
      }
    }
  }
}

}  // namespace
}  // namespace atom
