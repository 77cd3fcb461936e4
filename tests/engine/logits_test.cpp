#include "engine/logits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/random.h"

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
    std::vector<double> blocks;
    const double found = sum_of_exponentials(logits, shift, 0.5f, &blocks);
    EXPECT_NEAR(found, expected, 1e-6 * expected) << count;
    EXPECT_EQ(blocks.size(), (count + 63) / 64);
    double total = 0;
    for (const double block : blocks) total += block;
    EXPECT_EQ(total, found);
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
