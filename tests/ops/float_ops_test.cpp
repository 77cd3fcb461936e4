// Operators between floats: lookups are exact, the norm is close.
#include <array>
#include <cstdint>

#include "ops/draw.h"
#include "ops/ops_fixture.h"

namespace atom {
namespace {

// Half a dozen float roundings of 2^-24 relative: NMSE of some 1e-14.
constexpr double kNormLimit = 1e-12;

TEST(RmsNorm, AgreesWithDouble) {
  for (const int64_t tokens : {1, 3, 17, 129}) {
    for (const int64_t channels : {1, 7, 33, 200, 576}) {
      SCOPED_TRACE(fmt::format("{} x {}", tokens, channels));
      Matrix x = random_matrix(tokens + 1, channels, 81);
      for (float& v : x.row(0)) v *= 1e-3f;  // where eps counts
      const std::vector<float> weight = random_weight(channels, 82);
      Matrix want(tokens, channels);
      for (int64_t t = 0; t < tokens; ++t) {
        double sum = 0;
        for (const double v : x.row(t)) sum += v * v;
        const double factor = 1 / std::sqrt(sum / static_cast<double>(channels) + 1e-5f);
        for (int64_t k = 0; k < channels; ++k) {
          want.at(t, k) = static_cast<float>(x.at(t, k) * factor * weight[static_cast<size_t>(k)]);
        }
      }
      for (Backend* backend : all_backends()) {
        SCOPED_TRACE(backend->detail());
        const auto input = make_input(*backend, x);
        const auto y = make_output(*backend, tokens, channels);
        backend->rmsnorm({.x = input.get(), .weight = weight, .eps = 1e-5f, .tokens = tokens}, *y);
        expect_close(read_output(*backend, *y, tokens), want, kNormLimit);
      }
    }
  }
}

TEST(RmsNorm, ZerosStayZero) {
  const std::vector<float> weight = random_weight(33, 1);
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    const auto input = make_input(*backend, Matrix(3, 33));
    const auto y = make_output(*backend, 3, 33);
    backend->rmsnorm({.x = input.get(), .weight = weight, .eps = 1e-5f, .tokens = 3}, *y);
    expect_same(read_output(*backend, *y, 3).values, Matrix(3, 33).values);
  }
}

// Every stored weight is a float exactly: a code has at most 8 bits and a scale 11.
TEST(Embed, LooksRowsUpExactly) {
  std::vector<LinearFormat> formats;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    formats.push_back({.weight = {.dtype = dtype}, .act = {}});
  }
  for (const int bits : {3, 4, 8}) {
    formats.push_back(grouped_format(bits, 32, 0, OutlierKind::kNone));
    formats.push_back(grouped_format(bits, 32, 32, OutlierKind::kInt8, act_format(4, 32)));
  }
  formats.push_back(grouped_format(4, 0, 4, OutlierKind::kFloat));
  formats.push_back(two_level_format(32, 32, OutlierKind::kInt8, act_format(8, 0)));
  formats.push_back(two_level_format(0, 4, OutlierKind::kFloat));
  const std::vector<int32_t> ids = {0, 32, 5, 5, 31, 1};
  for (const LinearFormat& format : formats) {
    SCOPED_TRACE(format_name(format));
    const PackedLinear table = random_linear(format, 33, 96, 91);
    std::vector<double> values(33 * 96);
    dequantize(table, values);
    Matrix want(6, 96);
    for (size_t t = 0; t < ids.size(); ++t) {
      for (size_t k = 0; k < 96; ++k) {
        want.row(static_cast<int64_t>(t))[k] =
            static_cast<float>(values[static_cast<size_t>(ids[t]) * 96 + k]);
      }
    }
    for (Backend* backend : all_backends()) {
      SCOPED_TRACE(backend->detail());
      const auto y = make_output(*backend, 6, 96);
      const auto weights = load(*backend, table);
      backend->embed({.table = weights.get(), .ids = ids}, *y);
      expect_same(read_output(*backend, *y, 6).values, want.values);
    }
  }
}

Matrix logits_with_ties(int64_t rows, int64_t vocab, uint64_t seed) {
  Matrix x = random_matrix(rows, vocab, seed, false);
  for (float& v : x.values) v = std::round(4 * v);  // few different values
  return x;
}

int32_t first_largest(std::span<const float> row) {
  int32_t best = 0;
  float most = -std::numeric_limits<float>::infinity();
  for (size_t k = 0; k < row.size(); ++k) {
    if (row[k] > most) {
      most = row[k];
      best = static_cast<int32_t>(k);
    }
  }
  return best;
}

TEST(ChooseTokens, FindsTheFirstOfTheLargest) {
  for (const int64_t rows : {1, 3, 17, 129}) {
    for (const int64_t vocab : {1, 3, 33, 260, 1000, 4099}) {
      SCOPED_TRACE(fmt::format("{} x {}", rows, vocab));
      const Matrix x = logits_with_ties(rows, vocab, 98);
      for (Backend* backend : all_backends()) {
        SCOPED_TRACE(backend->detail());
        const auto input = make_input(*backend, x);
        auto ids = backend->make_token_ids(rows + 1);
        ASSERT_TRUE(ids.ok());
        EXPECT_EQ((*ids)->size(), rows + 1);
        backend->choose_tokens(*input, rows, {}, **ids);
        const std::vector<int32_t> got = backend->read(**ids, rows);
        for (int64_t t = 0; t < rows; ++t) {
          EXPECT_EQ(got[static_cast<size_t>(t)], first_largest(x.row(t))) << "row " << t;
        }
      }
    }
  }
}

TEST(ChooseTokens, SeesNoNumberInNaN) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  constexpr int64_t kVocab = 1030;
  Matrix x(7, kVocab);
  const auto set = [&](int64_t row, float all, std::vector<std::pair<int64_t, float>> some) {
    std::ranges::fill(x.row(row), all);
    for (const auto& [k, value] : some) x.at(row, k) = value;
  };
  set(0, kNaN, {{777, -5.0f}});
  set(1, kNaN, {});
  set(2, -kInfinity, {{0, kNaN}});
  set(3, -kInfinity, {{1029, -1e38f}});
  set(4, 1.0f, {{500, kInfinity}, {900, kInfinity}});
  set(5, -1.0f, {{3, -0.0f}, {4, 0.0f}});  // equal
  set(6, 2.0f, {{0, kNaN}, {1, kNaN}});
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    const auto input = make_input(*backend, x);
    auto ids = backend->make_token_ids(7);
    ASSERT_TRUE(ids.ok());
    backend->choose_tokens(*input, 7, {}, **ids);
    EXPECT_EQ(backend->read(**ids, 7), (std::vector<int32_t>{777, 0, 0, 1029, 500, 3, 2}));
  }
}

TEST(Embed, TakesIdsFromEarlierOnes) {
  const LinearFormat format = grouped_format(8, 32, 0, OutlierKind::kNone);
  const PackedLinear table = random_linear(format, 33, 96, 91);
  const Matrix logits = logits_with_ties(5, 33, 99);
  const std::vector<int32_t> ids = {4, -1, -5, 0, -3};
  std::vector<int32_t> plain = ids;
  for (int32_t& id : plain) {
    if (id < 0) id = first_largest(logits.row(-1 - id));
  }
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    const auto weights = load(*backend, table);
    const auto input = make_input(*backend, logits);
    auto earlier = backend->make_token_ids(5);
    ASSERT_TRUE(earlier.ok());
    backend->choose_tokens(*input, 5, {}, **earlier);
    const auto want = make_output(*backend, 5, 96), got = make_output(*backend, 5, 96);
    backend->embed({.table = weights.get(), .ids = plain}, *want);
    backend->embed({.table = weights.get(), .ids = ids, .earlier = earlier->get()}, *got);
    expect_same(read_output(*backend, *got, 5).values, read_output(*backend, *want, 5).values);
  }
}

// Of a step's logits the first rows come whole, from all a token is chosen.
TEST(RunStep, BringsItsOutputToTheHost) {
  const Matrix logits = logits_with_ties(6, 260, 100);
  Batch batch;
  batch.tokens = batch.positions = {0, 0, 0, 0, 0, 0};
  const std::vector<int32_t> page = {0};
  for (int64_t i = 0; i < 6; ++i) {
    batch.logit_rows.push_back(static_cast<int32_t>(i));
    batch.sequences.push_back({.first_token = i, .token_count = 1, .pages = page});
  }
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    auto cache = backend->make_kv_cache(
        {.layers = 1, .kv_heads = 1, .head_dim = 64, .pages = 1, .format = {.bits = 4}});
    ASSERT_TRUE(cache.ok()) << cache.status().message();
    const auto state = make_output(*backend, 6, 8), to = make_output(*backend, 6, 260);
    const auto from = make_input(*backend, logits);
    auto chosen = backend->make_token_ids(6);
    auto readback = backend->make_readback(6, 260);
    ASSERT_TRUE(chosen.ok() && readback.ok());
    Random random(101);
    DrawScratch scratch;
    for (int64_t step = 0; step < 20; ++step) {  // often enough to be recorded
      const int64_t whole = std::array{0, 2, 6, 0, 1, 0, 0}[static_cast<size_t>(step % 7)];
      SCOPED_TRACE(step);
      batch.draws.resize(step % 3 == 0 ? 0 : 6);
      for (TokenDraw& draw : batch.draws) {
        draw = {.scale = static_cast<float>(random.below(3)), .random = random.next()};
      }
      backend->run_step(
          {.batch = &batch,
           .cache = cache->get(),
           .state = state.get(),
           .logits = to.get(),
           .reading = {.to = readback->get(), .whole_rows = whole, .chosen = chosen->get()}},
          [&] {
            backend->gather_rows(*from, batch.logit_rows, *to);
            if (whole < 6) backend->choose_tokens(*to, 6, batch.draws, **chosen);
          });
      const StepOutput output = (*readback)->wait();
      ASSERT_EQ(output.chosen.size(), whole < 6 ? 6u : 0u);
      ASSERT_EQ(output.logits.size(), static_cast<size_t>(whole * 260));
      for (size_t t = 0; t < output.chosen.size(); ++t) {
        const TokenDraw draw = batch.draws.empty() ? TokenDraw{} : batch.draws[t];
        EXPECT_EQ(output.chosen[t], draw_token(logits.row(static_cast<int64_t>(t)), draw, scratch));
      }
      expect_same(output.logits, std::span(logits.values).first(output.logits.size()));
      EXPECT_GE(output.seconds, 0);
    }
  }
}

TEST(GatherRows, CopiesRows) {
  const Matrix x = random_matrix(17, 33, 95);
  const std::vector<int32_t> rows = {16, 0, 3, 3, 9};
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    const auto input = make_input(*backend, x);
    const auto y = make_output(*backend, 5, 33);
    backend->gather_rows(*input, rows, *y);
    const Matrix got = read_output(*backend, *y, 5);
    for (size_t i = 0; i < rows.size(); ++i) {
      expect_same(got.row(static_cast<int64_t>(i)), x.row(rows[i]));
    }
  }
}

TEST(HostAccess, ReadsWhatWasWritten) {
  const Matrix x = random_matrix(17, 33, 96);
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    const auto tensor = make_input(*backend, x);
    EXPECT_EQ(tensor->rows(), 17);
    EXPECT_EQ(tensor->cols(), 33);
    Matrix some(5, 33);
    backend->read(*tensor, 5, some.values);
    for (int64_t t = 0; t < 5; ++t) expect_same(some.row(t), x.row(t));
    const Matrix two = random_matrix(2, 33, 97);
    backend->write(*tensor, two.values);  // leading rows only
    Matrix all(17, 33);
    backend->read(*tensor, 17, all.values);
    for (int64_t t = 0; t < 17; ++t) expect_same(all.row(t), t < 2 ? two.row(t) : x.row(t));
  }
}

TEST(Objects, AbsurdSizesAreErrors) {
  constexpr int64_t kHuge = INT64_MAX / 2;
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    EXPECT_FALSE(backend->make_tensor(kHuge, 1000).ok());
    EXPECT_FALSE(backend->make_tensor(-1, 8).ok());
    EXPECT_FALSE(backend->make_activations({}, 1000, kHuge).ok());
    EXPECT_FALSE(
        backend->make_kv_cache({.layers = 30, .kv_heads = 8, .head_dim = 128, .pages = kHuge})
            .ok());
  }
}

}  // namespace
}  // namespace atom
