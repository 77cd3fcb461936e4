// linear: every format on ragged shapes against ref, and exactly where exactness can be asked for.
#include <algorithm>

#include "base/parallel.h"
#include "ops/ops_fixture.h"
#include "tensor/packing.h"

namespace atom {
namespace {

// Integer sums are exact; what is left is one float product and sum a group. 2^-24 relative each,
// over a dozen groups of random sign, is below 1e-13; float formats sum up to 700 products. The
// limit is far above that and far below a single wrong code (1e-5 for K = 300).
constexpr double kLinearLimit = 1e-11;

struct Shape {
  int64_t tokens = 0, rows = 0;
};
constexpr Shape kShapes[] = {{1, 200}, {3, 33}, {17, 7}, {129, 1}, {6, 50}};

struct LinearCase {
  LinearFormat format = {};
  int64_t cols = 0;
  Shape shape = {};
  Scales scales = Scales::kRandom;
  bool bias = false;
  bool accumulate = false;
  Precision precision = Precision::kFull;  // of y
};

// K for a format: a few groups and the outliers, with the raggedest tail that validate allows.
int64_t columns(const WeightFormat& w) { return (w.group == 0 ? 100 : 3 * w.group) + w.outliers; }

// What the backend makes of x quantized to the case's format, times the weights.
Matrix run(Backend& backend, const LinearCase& c, const PackedLinear& packed, const Matrix& x,
           const Matrix& y) {
  const auto acts = make_acts(backend, c.format, c.cols, c.shape.tokens + 1);
  const auto weights = load(backend, packed);
  EXPECT_GT(weights->bytes(), 0);
  EXPECT_EQ(weights->rows(), c.shape.rows);
  EXPECT_EQ(weights->cols(), c.cols);
  backend.quantize(*make_input(backend, x), c.shape.tokens, {}, *acts);
  const auto out = make_output(backend, c.shape.tokens, c.shape.rows, c.precision);
  if (c.accumulate) backend.write(*out, y.values);
  backend.linear({.x = acts.get(),
                  .w = weights.get(),
                  .y = out.get(),
                  .tokens = c.shape.tokens,
                  .accumulate = c.accumulate});
  return read_output(backend, *out, c.shape.tokens);
}

void compare_with_ref(const LinearCase& c) {
  SCOPED_TRACE(fmt::format("{}: {} x {} x {}{}{}", format_name(c.format), c.shape.tokens,
                           c.shape.rows, c.cols, c.bias ? " bias" : "",
                           c.accumulate ? " accumulate" : ""));
  const PackedLinear packed = random_linear(c.format, c.shape.rows, c.cols, 7, c.scales, c.bias);
  const Matrix x = random_matrix(c.shape.tokens, c.cols, 8);
  const Matrix y = random_matrix(c.shape.tokens, c.shape.rows, 9);
  const Matrix want = run(ref_backend(), c, packed, x, y);
  for (Backend* backend : other_backends()) {
    SCOPED_TRACE(backend->detail());
    // Rounding to F16 is off by 2^-11 of an element at most.
    const bool halves = c.precision == Precision::kHalf || takes_halves(*backend, c.format) ||
                        multiplies_halves(*backend, c.format, c.shape.tokens);
    expect_close(run(*backend, c, packed, x, y), want, halves ? 0x1p-21 : kLinearLimit);
  }
}

// The activation formats that go with a group size of the weights.
std::vector<ActFormat> activation_formats(int64_t group, bool two_level) {
  std::vector<ActFormat> formats = {ActFormat{}};
  for (const int bits : {3, 4, 8}) {
    for (const int64_t g : {group, int64_t{0}}) {
      if (two_level && g != 0) continue;
      formats.push_back(act_format(bits, g, ActRule::kSymmetric, 0.9f));
      formats.push_back(act_format(bits, g, ActRule::kSigned));
      if (bits != 8) formats.push_back(act_format(bits, g, ActRule::kAsymmetric));
      if (group == 0) break;
    }
  }
  formats.push_back(act_format(4, 0, ActRule::kSymmetric, 1.0f, true));
  formats.push_back(fp4_acts(two_level ? 0 : group, 0.9f));
  formats.push_back(nvfp4_acts(two_level ? 0 : group));
  return formats;
}

// Every weight format with every activation format, the shapes taken in turn.
std::vector<LinearCase> all_quantized_cases() {
  std::vector<LinearCase> cases;
  const auto add = [&](const LinearFormat& format) {
    const size_t i = cases.size();
    cases.push_back({.format = format,
                     .cols = columns(format.weight),
                     .shape = kShapes[i % std::size(kShapes)],
                     .bias = i % 3 == 0,
                     .accumulate = i % 4 == 1,
                     .precision = i % 4 == 2 ? Precision::kHalf : Precision::kFull});
  };
  struct Outliers {
    OutlierKind kind;
    int64_t count;
  };
  for (const Outliers outliers :
       {Outliers{OutlierKind::kNone, 0}, Outliers{OutlierKind::kFloat, 5},
        Outliers{OutlierKind::kInt8, 16}, Outliers{OutlierKind::kInt8, 67}}) {
    add(nvfp4_format(16, outliers.count, outliers.kind, nvfp4_acts()));
    for (const int64_t group : {0, 32, 64, 128}) {
      for (const ActFormat& act : activation_formats(group, false)) {
        for (const int bits : {3, 4, 8}) {
          add(grouped_format(bits, group, outliers.count, outliers.kind, act));
        }
        add(fp4_format(group, outliers.count, outliers.kind, act));
        add(nvfp4_format(group, outliers.count, outliers.kind, act));
      }
      for (const ActFormat& act : activation_formats(group, true)) {
        add(two_level_format(group, outliers.count, outliers.kind, act));
      }
      // What the quantizer runs: float weights on quantized activations.
      for (const ActFormat& act : activation_formats(group, false)) {
        if (!act.quantized) continue;
        LinearFormat format = grouped_format(4, group, outliers.count, outliers.kind, act);
        format.weight.kind = WeightKind::kFloat;
        add(format);
      }
    }
  }
  return cases;
}

TEST(Linear, EveryQuantizedFormatAgreesWithRef) {
  for (const LinearCase& c : all_quantized_cases()) {
    compare_with_ref(c);
    if (testing::Test::HasFailure()) return;  // a thousand lines tell no more than one
  }
}

TEST(Linear, EveryShapeAgreesWithRef) {
  const ActFormat a4 = act_format(4, 128), a8 = act_format(8, 0);
  const LinearCase formats[] = {
      {.format = grouped_format(4, 128, 64, OutlierKind::kInt8, a4), .cols = 576},
      {.format = grouped_format(4, 0, 0, OutlierKind::kNone, act_format(4, 0)), .cols = 4},
      {.format = grouped_format(4, 4, 0, OutlierKind::kNone, act_format(4, 4)), .cols = 44},
      {.format = fp4_format(128, 64, OutlierKind::kInt8, fp4_acts(128)), .cols = 576},
      {.format = fp4_format(4, 0, OutlierKind::kNone, fp4_acts(4)), .cols = 44},
      {.format = fp4_format(32, 0, OutlierKind::kNone), .cols = 352},
      {.format = nvfp4_format(16, 64, OutlierKind::kInt8, nvfp4_acts()), .cols = 576},
      {.format = nvfp4_format(16, 0, OutlierKind::kNone, nvfp4_acts()), .cols = 176},
      {.format = grouped_format(8, 0, 0, OutlierKind::kNone, a8), .cols = 100},
      {.format = grouped_format(8, 32, 0, OutlierKind::kNone, act_format(8, 32)), .cols = 640},
      {.format = two_level_format(128, 64, OutlierKind::kInt8, a8), .cols = 576},
      {.format = two_level_format(0, 1, OutlierKind::kInt8, a8), .cols = 41},
      {.format = grouped_format(4, 32, 0, OutlierKind::kNone), .cols = 352},
      {.format = two_level_format(32, 5, OutlierKind::kInt8), .cols = 101},
  };
  for (LinearCase c : formats) {
    for (const int64_t tokens : {1, 2, 3, 5, 17, 64, 129}) {
      for (const int64_t rows : {1, 7, 16, 33, 200}) {
        c.shape = {tokens, rows};
        compare_with_ref(c);
      }
    }
    if (testing::Test::HasFailure()) return;
  }
}

// Output layers: sizes around those of a GPU's tiles, and rows that end within a stage.
TEST(Linear, BytesInGroupsAgreeWithRefForAnyTokens) {
  LinearCase c = {.format = grouped_format(8, 32, 0, OutlierKind::kNone, act_format(8, 32))};
  for (const int64_t tokens : {9, 33, 71, 96, 200}) {
    for (const int64_t cols : {576, 608}) {
      c.cols = cols;
      c.shape = {tokens, 150};
      compare_with_ref(c);
    }
  }
}

// q, k and v in one, parts that end within a GPU's tiles: the bits of the linear that joins them.
TEST(Linear, FusedPartsAreTheLinearThatJoinsThem) {
  const ActFormat a4 = act_format(4, 128), a8 = act_format(8, 0);
  const LinearFormat formats[] = {two_level_format(128, 64, OutlierKind::kInt8, a8),
                                  grouped_format(8, 0, 0, OutlierKind::kNone, a8),
                                  grouped_format(8, 32, 0, OutlierKind::kNone, act_format(8, 32)),
                                  grouped_format(4, 128, 64, OutlierKind::kInt8, a4),
                                  fp4_format(128, 64, OutlierKind::kInt8, fp4_acts(128)),
                                  nvfp4_format(16, 64, OutlierKind::kInt8, nvfp4_acts()),
                                  grouped_format(4, 128, 0, OutlierKind::kNone),
                                  {.weight = {.dtype = DType::kF16}}};
  constexpr int64_t kTokens = 5;
  for (const LinearFormat& format : formats) {
    const int64_t cols = 512 + format.weight.outliers;
    for (const bool bias : {false, true}) {
      const auto part = [&](int64_t rows, uint64_t seed) {
        return random_linear(format, rows, cols, seed, Scales::kRandom, bias);
      };
      const PackedLinear q = part(200, 1), k = part(40, 2), v = part(40, 3);
      const PackedLinear* parts[] = {&q, &k, &v};
      const Matrix x = random_matrix(kTokens, cols, 8);
      for (Backend* backend : all_backends()) {
        SCOPED_TRACE(fmt::format("{} on {}", format_name(format), backend->detail()));
        const auto outputs = [&](const LinearWeights& weights) {
          const auto acts = make_acts(*backend, format, cols, kTokens);
          backend->quantize(*make_input(*backend, x), kTokens, {}, *acts);
          const auto y = make_output(*backend, kTokens, weights.rows(), Precision::kFull);
          backend->linear({.x = acts.get(), .w = &weights, .y = y.get(), .tokens = kTokens});
          return read_output(*backend, *y, kTokens).values;
        };
        const auto fused = backend->load_fused(parts).value();
        EXPECT_EQ(outputs(*fused),
                  outputs(*backend->load_linear(JoinedRows(parts).join()).value()));
      }
    }
  }
}

// gate_proj and up_proj in one, of every format that a backend may gate, and of some that it does
// not: channels in eights and others.
TEST(GateUp, GatesOrLeavesBoth) {
  const ActFormat a4 = act_format(4, 128), a8 = act_format(8, 0);
  const LinearFormat formats[] = {two_level_format(128, 64, OutlierKind::kInt8, a8),
                                  two_level_format(32, 0, OutlierKind::kNone, a8),
                                  grouped_format(8, 0, 0, OutlierKind::kNone, a8),
                                  grouped_format(4, 128, 64, OutlierKind::kInt8, a4),
                                  fp4_format(128, 64, OutlierKind::kInt8, fp4_acts(128)),
                                  nvfp4_format(16, 64, OutlierKind::kInt8, nvfp4_acts()),
                                  grouped_format(4, 128, 0, OutlierKind::kNone),
                                  grouped_format(4, 32, 16, OutlierKind::kInt8)};
  for (const LinearFormat& format : formats) {
    const int64_t cols = 512 + format.weight.outliers;
    for (const int64_t channels : {8, 100, 264}) {
      for (const int64_t tokens : {1, 17, 70}) {
        for (const Precision precision : {Precision::kFull, Precision::kHalf}) {
          SCOPED_TRACE(fmt::format("{}: {} x 2 {}{}", format_name(format), tokens, channels,
                                   precision == Precision::kHalf ? " halves" : ""));
          const LinearCase c = {.format = format, .cols = cols, .shape = {tokens, 2 * channels}};
          const auto random_rows = [&](uint64_t seed) {
            return random_linear(format, channels, cols, seed, Scales::kRandom, tokens == 17);
          };
          const PackedLinear gate_proj = random_rows(7), up_proj = random_rows(9);
          const PackedLinear* parts[] = {&gate_proj, &up_proj};
          const Matrix x = random_matrix(tokens, cols, 8);
          const Matrix both = run(ref_backend(), c, JoinedRows(parts).join(), x, {});
          Matrix product(tokens, channels);
          for (int64_t t = 0; t < tokens; ++t) {
            for (int64_t k = 0; k < channels; ++k) {
              const double gate = both.at(t, k), up = both.at(t, channels + k);
              product.at(t, k) = static_cast<float>(gate / (1.0 + std::exp(-gate)) * up);
            }
          }
          for (Backend* backend : all_backends()) {
            SCOPED_TRACE(backend->detail());
            const auto acts = make_acts(*backend, format, cols, tokens);
            const auto weights = backend->load_gate_up(gate_proj, up_proj).value();
            EXPECT_EQ(weights->rows(), 2 * channels);
            if (weights->gated() && precision == Precision::kFull) continue;
            const Matrix& want = weights->gated() ? product : both;
            backend->quantize(*make_input(*backend, x), tokens, {}, *acts);
            const auto y = make_output(*backend, tokens, want.cols, precision);
            backend->linear({.x = acts.get(), .w = weights.get(), .y = y.get(), .tokens = tokens});
            const bool halves = precision == Precision::kHalf || takes_halves(*backend, format);
            expect_close(read_output(*backend, *y, tokens), halves ? halves_of(want) : want,
                         halves ? 0x1p-21 : kLinearLimit);
          }
          if (testing::Test::HasFailure()) return;
        }
      }
    }
  }
}

// A token's bits are the same whatever the tokens beside it are: a sequence's text must not change
// with what else is in a batch.
TEST(GateUp, TokensDoNotDependOnEachOther) {
  const ActFormat a4 = act_format(4, 128), a8 = act_format(8, 0);
  const LinearFormat formats[] = {two_level_format(128, 64, OutlierKind::kInt8, a8),
                                  grouped_format(8, 0, 0, OutlierKind::kNone, a8),
                                  grouped_format(4, 128, 64, OutlierKind::kInt8, a4),
                                  fp4_format(128, 64, OutlierKind::kInt8, fp4_acts(128)),
                                  grouped_format(4, 128, 0, OutlierKind::kNone)};
  constexpr int64_t kChannels = 264;
  for (const LinearFormat& format : formats) {
    const int64_t cols = 512 + format.weight.outliers;
    const PackedLinear gate_proj = random_linear(format, kChannels, cols, 7),
                       up_proj = random_linear(format, kChannels, cols, 9);
    for (const int64_t tokens : {2, 10, 70, 140}) {
      const Matrix x = random_matrix(tokens, cols, 8);
      for (Backend* backend : all_backends()) {
        SCOPED_TRACE(fmt::format("{}: {} on {}", format_name(format), tokens, backend->detail()));
        const auto weights = backend->load_gate_up(gate_proj, up_proj).value();
        const auto acts = make_acts(*backend, format, cols, tokens);
        const int64_t width = weights->gated() ? kChannels : 2 * kChannels;
        const auto outputs = [&](const Matrix& inputs) {
          backend->quantize(*make_input(*backend, inputs), tokens, {}, *acts);
          const auto y = make_output(*backend, tokens, width, Precision::kHalf);
          backend->linear({.x = acts.get(), .w = weights.get(), .y = y.get(), .tokens = tokens});
          return read_output(*backend, *y, tokens);
        };
        const Matrix first = outputs(x);
        for (const int64_t changed : {0, 1}) {
          Matrix other = random_matrix(tokens, cols, 11);
          for (int64_t t = 1 - changed; t < tokens; t += 2) {
            std::ranges::copy(x.row(t), other.row(t).begin());
          }
          const Matrix second = outputs(other);
          for (int64_t t = 1 - changed; t < tokens; t += 2) {
            ASSERT_TRUE(std::ranges::equal(first.row(t), second.row(t))) << "token " << t;
          }
        }
      }
    }
  }
}

TEST(Linear, FloatFormatsAgreeWithRef) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const int64_t cols : {1, 7, 33, 107, 700}) {
      for (const Shape shape : kShapes) {
        LinearFormat format;
        format.weight.dtype = dtype;
        compare_with_ref({.format = format,
                          .cols = cols,
                          .shape = shape,
                          .bias = cols % 2 == 1,
                          .accumulate = shape.tokens == 3,
                          .precision = shape.tokens == 17 ? Precision::kHalf : Precision::kFull});
      }
    }
  }
}

// --- exactness

// Channels whose groups quantize to themselves under a power-of-two scale: integers up to the top
// code, which each group holds, times a power of two.
Matrix exact_activations(const LinearFormat& format, int64_t tokens, int64_t cols, uint64_t seed) {
  Random random(seed);
  Matrix x(tokens, cols);
  const int64_t body = body_channels(format.weight, cols);
  const int64_t group = format.act.group == 0 ? body : format.act.group;
  const auto fill = [&](int64_t t, int64_t first, int64_t count, int64_t low, int64_t high,
                        bool fp4 = false) {
    const float scale = std::ldexp(1.0f, static_cast<int>(random.below(5)) - 3);
    for (int64_t k = first; k < first + count; ++k) {
      x.at(t, k) = static_cast<float>(low + random.below(high - low + 1)) * scale;
    }
    for (int64_t k = first; k < first + count && fp4; ++k) {
      x.at(t, k) = static_cast<float>(e2m1_code(static_cast<int>(random.below(16)))) * scale;
    }
    // The ends of the range, so that the scale is what we mean it to be.
    x.at(t, first) = static_cast<float>(high) * scale;
    x.at(t, first + count - 1) = static_cast<float>(low) * scale;
  };
  const int64_t top = largest_code(format.act.bits, format.act.grid);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t first = 0; first < body; first += group) {
      switch (format.act.rule) {
        case ActRule::kSymmetric:
          fill(t, first, group, -top, top, format.act.grid == CodeGrid::kE2M1);
          break;
        case ActRule::kSigned:
          fill(t, first, group, -top - 1, top);
          break;
        case ActRule::kAsymmetric:
          fill(t, first, group, -3, 2 * top - 2);
          break;
      }
    }
    if (body < cols) fill(t, body, cols - body, -127, 127);
  }
  return x;
}

// With scales that are powers of two every float step is exact, so that y must equal the integer
// result to the last bit on every backend, ref included.
TEST(Linear, IntegerSumsAreExact) {
  const LinearFormat formats[] = {
      grouped_format(4, 128, 64, OutlierKind::kInt8, act_format(4, 128)),
      grouped_format(4, 32, 16, OutlierKind::kInt8, act_format(4, 32, ActRule::kSigned)),
      grouped_format(4, 32, 16, OutlierKind::kInt8, act_format(4, 32, ActRule::kAsymmetric)),
      grouped_format(4, 64, 3, OutlierKind::kFloat, act_format(4, 64)),
      grouped_format(4, 32, 16, OutlierKind::kInt8,
                     act_format(4, 32, ActRule::kAsymmetric, 1.0f, true)),
      grouped_format(3, 64, 9, OutlierKind::kInt8, act_format(3, 0)),
      fp4_format(128, 64, OutlierKind::kInt8, fp4_acts(128)),
      fp4_format(32, 16, OutlierKind::kInt8, fp4_acts(32, 1.0f, true)),
      nvfp4_format(16, 16, OutlierKind::kInt8, nvfp4_acts()),
      nvfp4_format(16, 0, OutlierKind::kNone, nvfp4_acts(16, 1.0f, true)),
      nvfp4_format(64, 9, OutlierKind::kFloat, fp4_acts(64)),
      fp4_format(64, 9, OutlierKind::kFloat, act_format(4, 64, ActRule::kAsymmetric)),
      fp4_format(4, 0, OutlierKind::kNone, act_format(8, 0)),
      grouped_format(4, 128, 16, OutlierKind::kInt8, fp4_acts(0)),
      grouped_format(8, 0, 0, OutlierKind::kNone, act_format(8, 0)),
      grouped_format(8, 0, 0, OutlierKind::kNone, act_format(8, 0, ActRule::kSigned)),
      grouped_format(8, 64, 8, OutlierKind::kInt8, act_format(8, 64)),
      grouped_format(4, 64, 0, OutlierKind::kNone, act_format(8, 0)),
      two_level_format(128, 64, OutlierKind::kInt8, act_format(8, 0)),
      two_level_format(0, 0, OutlierKind::kNone, act_format(8, 0, ActRule::kSigned)),
      two_level_format(32, 5, OutlierKind::kFloat, act_format(4, 0)),
  };
  for (const LinearFormat& format : formats) {
    for (const Shape shape : kShapes) {
      SCOPED_TRACE(fmt::format("{}: {} x {}", format_name(format), shape.tokens, shape.rows));
      const LinearCase c = {.format = format,
                            .cols = columns(format.weight),
                            .shape = shape,
                            .accumulate = shape.tokens == 3};
      const PackedLinear packed =
          random_linear(format, shape.rows, c.cols, 3, Scales::kPowersOfTwo, true);
      const Matrix x = exact_activations(format, shape.tokens, c.cols, 4);
      Matrix y(shape.tokens, shape.rows);
      std::ranges::fill(y.values, 25.0f);
      std::vector<double> weights(static_cast<size_t>(packed.rows * packed.cols));
      dequantize(packed, weights);
      Matrix want(shape.tokens, shape.rows);
      for (int64_t t = 0; t < shape.tokens; ++t) {
        for (int64_t n = 0; n < shape.rows; ++n) {
          double sum = packed.bias[static_cast<size_t>(n)] + (c.accumulate ? 25.0 : 0.0);
          for (int64_t k = 0; k < c.cols; ++k) {
            sum += x.at(t, k) * weights[static_cast<size_t>(n * c.cols + k)];
          }
          want.at(t, n) = static_cast<float>(sum);
          ASSERT_EQ(want.at(t, n), sum) << "the case is too large to be exact";
        }
      }
      for (Backend* backend : all_backends()) {
        SCOPED_TRACE(backend->detail());
        expect_same(run(*backend, c, packed, x, y).values, want.values);
      }
    }
    if (testing::Test::HasFailure()) return;
  }
}

// The largest sums that codes allow: -128 * -128 throughout, where 16-bit intermediates saturate.
TEST(Linear, ExtremeCodesDoNotSaturate) {
  for (const bool negative_weights : {false, true}) {
    const LinearFormat format =
        grouped_format(8, 0, 0, OutlierKind::kNone, act_format(8, 0, ActRule::kSigned));
    const LinearCase c = {.format = format, .cols = 256, .shape = {3, 33}};
    PackedLinear packed = random_linear(format, 33, 256, 1, Scales::kPowersOfTwo);
    std::ranges::fill(packed.codes, negative_weights ? 0x80 : 0x7f);
    std::ranges::fill(packed.scales, f32_to_f16(1.0f));
    Matrix x(3, 256);
    std::ranges::fill(x.values, -128.0f);
    const float want = 256.0f * -128.0f * (negative_weights ? -128.0f : 127.0f);
    for (Backend* backend : all_backends()) {
      SCOPED_TRACE(backend->detail());
      for (const float y : run(*backend, c, packed, x, {}).values) ASSERT_EQ(y, want);
    }
  }
}

TEST(Linear, ZeroActivationsGiveTheBias) {
  for (const LinearFormat& format :
       {grouped_format(4, 32, 16, OutlierKind::kInt8, act_format(4, 32)),
        grouped_format(4, 32, 16, OutlierKind::kInt8,
                       act_format(4, 32, ActRule::kAsymmetric, 0.9f, true)),
        two_level_format(32, 16, OutlierKind::kInt8, act_format(8, 0))}) {
    const LinearCase c = {
        .format = format, .cols = columns(format.weight), .shape = {3, 33}, .bias = true};
    const PackedLinear packed = random_linear(format, 33, c.cols, 1, Scales::kRandom, true);
    for (Backend* backend : all_backends()) {
      SCOPED_TRACE(backend->detail());
      const Matrix y = run(*backend, c, packed, Matrix(3, c.cols), {});
      for (int64_t t = 0; t < 3; ++t) expect_same(y.row(t), packed.bias);
    }
  }
}

TEST(Linear, ResultsDoNotDependOnTheNumberOfThreads) {
  LinearFormat f32;
  for (const LinearFormat& format :
       {grouped_format(4, 128, 64, OutlierKind::kInt8, act_format(4, 128)),
        two_level_format(128, 64, OutlierKind::kInt8, act_format(8, 0)), f32}) {
    const LinearCase c = {.format = format, .cols = 448, .shape = {17, 200}};
    const PackedLinear packed = random_linear(format, 200, 448, 1);
    const Matrix x = random_matrix(17, 448, 2);
    for (Backend* backend : all_backends()) {
      SCOPED_TRACE(backend->detail());
      set_thread_count(1);
      const Matrix want = run(*backend, c, packed, x, {});
      for (const int threads : {2, 5}) {
        set_thread_count(threads);
        expect_same(run(*backend, c, packed, x, {}).values, want.values);
      }
      set_thread_count(0);
    }
  }
}

}  // namespace
}  // namespace atom
