// Drawing tokens: every backend draws what ops/draw.h says, bit for bit, and draws come as often as
// they should.
#include <algorithm>
#include <array>
#include <cmath>

#include "ops/draw.h"
#include "ops/ops_fixture.h"

namespace atom {
namespace {

constexpr float kNoLogit = -std::numeric_limits<float>::infinity();

enum class Logits : uint8_t {
  kNormal,
  kSteps,     // few different values: ties
  kEqual,     // one value
  kOneHot,    // one far above the rest
  kWide,      // most weights are rounded to nothing
  kNearlyTop  // many within a few bits of the largest
};

Matrix make_logits(Logits kind, int64_t rows, int64_t vocab, Random& random) {
  Matrix x(rows, vocab);
  for (float& v : x.values) {
    switch (kind) {
      case Logits::kNormal:
        v = static_cast<float>(3 * random.normal());
        break;
      case Logits::kSteps:
        v = static_cast<float>(random.below(6));
        break;
      case Logits::kEqual:
        v = 2.5f;
        break;
      case Logits::kOneHot:
        v = -20.0f;
        break;
      case Logits::kWide:
        v = static_cast<float>(300 * random.normal());
        break;
      case Logits::kNearlyTop:
        v = 4.0f + 0x1p-21f * static_cast<float>(random.below(20));
        break;
    }
  }
  if (kind == Logits::kOneHot) {
    for (int64_t t = 0; t < rows; ++t) x.at(t, random.below(vocab)) = 20.0f;
  }
  // Some are no numbers, in some rows all.
  for (int64_t t = 0; t < rows; ++t) {
    if (t % 8 == 3) x.at(t, random.below(vocab)) = std::numeric_limits<float>::quiet_NaN();
    if (t % 8 == 4) x.at(t, random.below(vocab)) = kNoLogit;
    if (t % 16 == 5) x.at(t, random.below(vocab)) = -kNoLogit;
    if (t % 16 == 6) std::ranges::fill(x.row(t), std::numeric_limits<float>::quiet_NaN());
    if (t % 16 == 7) std::ranges::fill(x.row(t), kNoLogit);
  }
  return x;
}

TokenDraw make_draw(int64_t vocab, Random& random) {
  constexpr std::array kScales = {0.0f, 1.0f, 1.4f, 0.01f, 1e30f, 0.5f};
  TokenDraw draw = {.scale = kScales[static_cast<size_t>(random.below(kScales.size()))],
                    .random = random.next()};
  if (random.below(8) == 0) draw.random = random.below(2) == 0 ? 0 : UINT64_MAX;
  if (random.below(2) == 0) {
    const std::array<int64_t, 5> counts = {1, 2, 1 + random.below(40), 1 + random.below(vocab),
                                           vocab + 1};
    draw.top_k = static_cast<int32_t>(counts[static_cast<size_t>(random.below(counts.size()))]);
  }
  if (random.below(2) == 0) {
    const std::array<uint64_t, 4> shares = {1, UINT64_MAX, random.next() | 1, UINT64_MAX / 10 * 9};
    draw.top_p = shares[static_cast<size_t>(random.below(shares.size()))];
  }
  if (random.below(3) == 0) {
    draw.min_weight = random.below(4) == 0 ? kFullWeight : random.next() % (kFullWeight / 3);
  }
  return draw;
}

TEST(DrawTokens, AgreeOnEveryBackend) {
  Random random(31);
  DrawScratch scratch;
  for (const int64_t vocab : {1, 2, 33, 1000, 4099, 32000, 151936}) {
    const int64_t rows = vocab < 5000 ? 48 : vocab < 50000 ? 8 : 2;
    for (const Logits kind : {Logits::kNormal, Logits::kSteps, Logits::kEqual, Logits::kOneHot,
                              Logits::kWide, Logits::kNearlyTop}) {
      SCOPED_TRACE(fmt::format("{} x {}, logits {}", rows, vocab, static_cast<int>(kind)));
      const Matrix x = make_logits(kind, rows, vocab, random);
      std::vector<TokenDraw> draws;
      std::vector<int32_t> want;
      for (int64_t t = 0; t < rows; ++t) {
        draws.push_back(make_draw(vocab, random));
        want.push_back(draw_token(x.row(t), draws.back(), scratch));
      }
      for (Backend* backend : all_backends()) {
        SCOPED_TRACE(backend->detail());
        const auto input = make_input(*backend, x);
        auto ids = backend->make_token_ids(rows);
        ASSERT_TRUE(ids.ok());
        backend->choose_tokens(*input, rows, draws, **ids);
        const std::vector<int32_t> got = backend->read(**ids, rows);
        for (size_t t = 0; t < want.size(); ++t) {
          const TokenDraw& d = draws[t];
          ASSERT_EQ(got[t], want[t])
              << fmt::format("row {}: scale {} top_k {} top_p {} min {} random {}", t, d.scale,
                             d.top_k, d.top_p, d.min_weight, d.random);
        }
      }
    }
  }
}

// A filter that keeps everything, or one token, changes nothing else.
TEST(DrawTokens, FiltersAtTheirEnds) {
  Random random(32);
  DrawScratch scratch;
  for (int round = 0; round < 200; ++round) {
    const Matrix x = make_logits(Logits::kNormal, 1, 700, random);
    const TokenDraw plain = {.scale = 1.0f, .random = random.next()};
    const int32_t token = draw_token(x.row(0), plain, scratch);
    TokenDraw draw = plain;
    draw.top_k = 699;  // the last one's share is nothing
    draw.top_p = UINT64_MAX;
    draw.min_weight = 1;
    EXPECT_EQ(draw_token(x.row(0), draw, scratch), token);
    const int32_t best = best_token(x.row(0)).id;
    for (const TokenDraw& narrow :
         {TokenDraw{.scale = 1.0f, .top_k = 1, .random = random.next()},
          TokenDraw{.scale = 1.0f, .top_p = 1, .random = random.next()},
          TokenDraw{.scale = 1.0f, .min_weight = kFullWeight, .random = random.next()}}) {
      EXPECT_EQ(draw_token(x.row(0), narrow, scratch), best);
    }
  }
}

// Pearson's statistic of draws with the engine's random numbers, against probabilities by doubles.
double chi_square(std::span<const float> logits, TokenDraw draw, const std::vector<double>& shares,
                  int64_t count) {
  std::vector<int64_t> seen(shares.size());
  DrawScratch scratch;
  for (int64_t i = 0; i < count; ++i) {
    draw.random = Random::nth(9, static_cast<uint64_t>(i));
    ++seen[static_cast<size_t>(draw_token(logits, draw, scratch))];
  }
  double statistic = 0;
  for (size_t i = 0; i < shares.size(); ++i) {
    const double expected = shares[i] * static_cast<double>(count);
    if (expected == 0) {
      EXPECT_EQ(seen[i], 0) << "token " << i;
    } else {
      statistic += (static_cast<double>(seen[i]) - expected) *
                   (static_cast<double>(seen[i]) - expected) / expected;
    }
  }
  return statistic;
}

TEST(DrawTokens, ComeAsOftenAsTheyShould) {
  constexpr int64_t kVocab = 200, kDraws = 20000;
  Random random(33);
  std::vector<float> logits(kVocab);
  for (float& x : logits) x = static_cast<float>(random.normal());
  std::vector<int32_t> order(kVocab);
  for (int32_t i = 0; i < kVocab; ++i) order[static_cast<size_t>(i)] = i;
  std::ranges::sort(order, [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  const double best = logits[static_cast<size_t>(order[0])];
  struct Case {
    double temperature;
    int64_t top_k;
    double top_p, min_p;
  };
  for (const Case& c : {Case{1.0, 0, 1.0, 0.0}, Case{0.7, 0, 1.0, 0.0}, Case{1.0, 40, 1.0, 0.0},
                        Case{1.3, 0, 0.8, 0.0}, Case{1.0, 0, 1.0, 0.1}, Case{1.0, 60, 0.7, 0.05}}) {
    SCOPED_TRACE(fmt::format("{} {} {} {}", c.temperature, c.top_k, c.top_p, c.min_p));
    std::vector<double> shares(kVocab);
    std::vector<double> weights;
    for (const int32_t id : order) {
      weights.push_back(std::exp((logits[static_cast<size_t>(id)] - best) / c.temperature));
    }
    if (c.top_k > 0) weights.resize(static_cast<size_t>(c.top_k));
    double all = 0, reached = 0, left = 0;
    for (const double w : weights) all += w;
    size_t kept = 0;
    while (kept < weights.size() && reached < c.top_p * all && weights[kept] >= c.min_p) {
      reached += weights[kept++];
    }
    for (size_t i = 0; i < kept; ++i) left += weights[i];
    for (size_t i = 0; i < kept; ++i) shares[static_cast<size_t>(order[i])] = weights[i] / left;
    const TokenDraw draw = {
        .scale = static_cast<float>(1 / c.temperature),
        .top_k = static_cast<int32_t>(c.top_k),
        .top_p = c.top_p < 1 ? static_cast<uint64_t>(std::ldexp(c.top_p, 64)) : 0,
        .min_weight = static_cast<uint64_t>(c.min_p * static_cast<double>(kFullWeight))};
    // With kept - 1 degrees of freedom the statistic has this mean and twice it as variance.
    const auto mean = static_cast<double>(kept - 1);
    const double statistic = chi_square(logits, draw, shares, kDraws);
    EXPECT_LT(statistic, mean + 4 * std::sqrt(2 * mean));
    EXPECT_GT(statistic, mean - 4 * std::sqrt(2 * mean));
  }
}

}  // namespace
}  // namespace atom
