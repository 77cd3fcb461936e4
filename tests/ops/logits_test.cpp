#include "ops/logits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/random.h"
#include "ops/token_draw.h"

namespace atom {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Logits, ExponentialIsClose) {
  double worst = 0;
  for (double x = 0; x > -87; x -= 0.00137) {
    const auto rounded = static_cast<float>(x);
    const double exact = std::exp(static_cast<double>(rounded));
    worst = std::max(worst, std::abs(exp_nonpositive(rounded) - exact) / exact);
  }
  EXPECT_LT(worst, 2.4e-7);
  EXPECT_EQ(exp_nonpositive(0.0f), 1.0f);
  EXPECT_EQ(exp_nonpositive(-1e30f), 0.0f);
  EXPECT_EQ(exp_nonpositive(-kInfinity), 0.0f);
  EXPECT_EQ(exp_nonpositive(kNan), 0.0f);
}

TEST(Logits, SumsAreThoseOfDoubles) {
  Random random(1);
  for (const size_t count : {1u, 15u, 16u, 64u, 65u, 49152u}) {
    std::vector<float> logits(count);
    for (float& x : logits) x = static_cast<float>(4 * random.normal());
    logits[count / 2] = kNan;
    if (count > 3) logits[3] = -kInfinity;
    const float shift = std::max(best_token(logits).logit, -100.0f);
    double expected = 0;
    for (const float x : logits) {
      if (!std::isnan(x)) expected += std::exp((static_cast<double>(x) - shift) * 0.5);
    }
    EXPECT_NEAR(sum_of_exponentials(logits, shift, 0.5f), expected, 1e-6 * expected) << count;
  }
}

// The lanes of vectors compute what token_draw.h says of one token.
TEST(Logits, WeightsAreThoseOfSingleTokens) {
  Random random(4);
  std::vector<float> weights;
  std::vector<uint64_t> blocks;
  for (const size_t count : {1u, 15u, 16u, 64u, 65u, 49152u}) {
    const auto scale = static_cast<float>(3 * random.uniform());
    std::vector<float> logits(count);
    for (float& x : logits) {
      x = static_cast<float>((random.below(2) == 0 ? 1.0 : 20.0) * random.normal());
    }
    logits[count / 2] = kNan;
    if (count > 3) logits[3] = -kInfinity;
    const float best = std::max(best_token(logits).logit, -100.0f);
    for (const uint64_t least : {uint64_t{0}, kFullWeight / 3}) {
      const uint64_t found = weigh_tokens(logits, best, scale, least, weights, blocks);
      ASSERT_EQ(weights.size(), count);
      ASSERT_EQ(blocks.size(), (count + 63) / 64);
      uint64_t total = 0;
      for (size_t i = 0; i < count; ++i) {
        ASSERT_EQ(weights[i], relative_weight(logits[i], best, scale)) << logits[i];
        ASSERT_LE(weights[i], 1.0f) << logits[i];
        const uint64_t whole = whole_weight(weights[i]);
        if (whole < least) continue;
        total += whole;
        blocks[i / 64] -= whole;
      }
      EXPECT_EQ(total, found);
      EXPECT_EQ(std::ranges::count(blocks, 0u), static_cast<std::ptrdiff_t>(blocks.size()));
    }
  }
  // Near zero, where weights are close to 1: none is above it.
  for (float x = -1.0f; x < -1e-38f; x *= 0.9999f) {
    ASSERT_LE(exp_nonpositive(x), 1.0f) << x;
  }
}

TEST(Logits, RankingIsThatOfSorting) {
  Random random(2);
  TokenRanking ranking;
  for (const int64_t vocab : {1, 2, 63, 64, 200, 5000}) {
    for (int round = 0; round < 10; ++round) {
      std::vector<float> logits(static_cast<size_t>(vocab));
      for (float& x : logits) {
        x = round % 2 == 0 ? static_cast<float>(random.normal())
                           : static_cast<float>(random.below(4));
        if (random.below(20) == 0) x = kNan;
        if (random.below(20) == 0) x = -kInfinity;
      }
      std::vector<RankedToken> sorted;
      for (int64_t i = 0; i < vocab; ++i) {
        const float logit = logits[static_cast<size_t>(i)];
        sorted.push_back({std::isnan(logit) ? -kInfinity : logit, static_cast<int32_t>(i)});
      }
      std::sort(sorted.begin(), sorted.end(), ranks_before);
      EXPECT_EQ(best_token(logits).id, sorted[0].id);
      for (const int64_t count : {int64_t{1}, int64_t{5}, int64_t{20}, vocab, 2 * vocab}) {
        const auto best = ranking.best(logits, count);
        ASSERT_EQ(static_cast<int64_t>(best.size()), std::min(count, vocab));
        for (size_t i = 0; i < best.size(); ++i) {
          ASSERT_EQ(best[i].id, sorted[i].id) << vocab << " " << count << " " << i;
          ASSERT_EQ(best[i].logit, sorted[i].logit);
        }
      }
    }
  }
}

}  // namespace
}  // namespace atom
