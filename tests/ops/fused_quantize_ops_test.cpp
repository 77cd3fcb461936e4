// The operators that quantize what they compute: norms and SiLU. Codes and scales are the same bits
// on every backend.
#include <algorithm>
#include <functional>
#include <utility>

#include "ops/activation_cases.h"
#include "ops/numerics.h"

namespace atom {
namespace {

TEST(RmsNormQuantize, CodesAreTheSameOnEveryBackend) {
  for (const LinearFormat& format : every_activation_format()) {
    if (format.weight.group == 4) continue;
    SCOPED_TRACE(format_name(format));
    const int64_t channels = channels_of(format);
    Matrix x = random_matrix(3, channels, 25);
    std::ranges::fill(x.row(1), 0.0f);
    const std::vector<float> weight = random_weight(channels, 26);
    const std::vector<int32_t> perm = random_permutation(channels, 27);
    const auto run_norm = [&](Backend& backend) {
      return filled(backend, format, channels, 3, [&](Activations& acts) {
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

TEST(SiluMulQuantize, CodesAreTheSameOnEveryBackend) {
  for (const LinearFormat& format : every_activation_format()) {
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
        return filled(backend, format, channels, 3, [&](Activations& acts) {
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
        return filled(backend, format, w.channels, w.tokens,
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

// Many rows, for which a GPU has other kernels than for few, of what a linear gated.
TEST(WideInputs, ManyRowsAreRoundedLikeFew) {
  constexpr int64_t kRows = 257, kDifferent = 4;
  for (const int64_t channels : {4608, 14336}) {
    SCOPED_TRACE(fmt::format("{} channels", channels));
    const LinearFormat format =
        two_level_format(32, 128, OutlierKind::kInt8, act_format(8, 0, ActRule::kSymmetric, 0.9f));
    const Matrix few = halves_of(random_matrix(kDifferent, channels, 48));
    Matrix many(kRows, channels);
    for (int64_t t = 0; t < kRows; ++t) {
      std::ranges::copy(few.row(t % kDifferent), many.row(t).begin());
    }
    for (Backend* backend : other_backends()) {
      SCOPED_TRACE(backend->detail());
      const auto rounded = [&](const Matrix& x) {
        return filled(*backend, format, channels, x.rows, [&](Activations& acts) {
          backend->quantize(*make_input(*backend, x, Precision::kHalf), x.rows, {}, acts);
        });
      };
      const HostActivations want = rounded(few), got = rounded(many);
      for (size_t t = 0; t < kRows; ++t) {
        const size_t same = t % kDifferent, width = static_cast<size_t>(channels);
        ASSERT_TRUE(std::ranges::equal(std::span(got.codes).subspan(t * width, width),
                                       std::span(want.codes).subspan(same * width, width)))
            << "row " << t;
        ASSERT_EQ(got.scales[t], want.scales[same]) << "row " << t;
        ASSERT_EQ(got.outlier_scales[t], want.outlier_scales[same]) << "row " << t;
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
        y.values = filled(backend, format, channels, kTokens, [&](Activations& acts) {
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
