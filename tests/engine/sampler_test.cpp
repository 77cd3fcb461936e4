#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

namespace atom {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// How often each token comes out of n draws.
std::map<int32_t, int> histogram(const SamplingParams& params, const std::vector<float>& logits,
                                 int n = 20000) {
  Sampler sampler(params);
  std::map<int32_t, int> counts;
  for (int i = 0; i < n; ++i) ++counts[sampler.sample(logits, {})];
  return counts;
}

// Five standard deviations of a binomial share.
double tolerance(double p, int n) { return 5 * std::sqrt(p * (1 - p) / n); }

void expect_shares(const SamplingParams& params, const std::vector<float>& logits,
                   const std::map<int32_t, double>& shares) {
  constexpr int kDraws = 20000;
  const std::map<int32_t, int> counts = histogram(params, logits, kDraws);
  EXPECT_EQ(counts.size(), shares.size());
  for (const auto& [token, share] : shares) {
    const auto found = counts.find(token);
    ASSERT_NE(found, counts.end()) << "token " << token << " never came";
    EXPECT_NEAR(static_cast<double>(found->second) / kDraws, share, tolerance(share, kDraws))
        << "token " << token;
  }
}

// Probabilities .5, .3, .15, .05 in the order of ids 2, 0, 3, 1.
const std::vector<float> kLogits = {std::log(0.3f), std::log(0.05f), std::log(0.5f),
                                    std::log(0.15f)};

TEST(Sampler, ZeroTemperatureTakesTheLargest) {
  Sampler sampler({});
  EXPECT_EQ(sampler.sample(kLogits, {}), 2);
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 4, 4, 2}, {}), 1);  // the first of equals
  EXPECT_EQ(sampler.sample(std::vector<float>{kNan, -5, kNan, -7}, {}), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{kNan, kNan}, {}), 0);
}

TEST(Sampler, TemperatureOneDrawsFromTheSoftmax) {
  expect_shares({.temperature = 1.0}, kLogits, {{0, 0.3}, {1, 0.05}, {2, 0.5}, {3, 0.15}});
}

TEST(Sampler, TemperatureSharpens) {
  const double sum = 0.25 + 0.09 + 0.0225 + 0.0025;
  expect_shares({.temperature = 0.5}, kLogits,
                {{0, 0.09 / sum}, {1, 0.0025 / sum}, {2, 0.25 / sum}, {3, 0.0225 / sum}});
}

TEST(Sampler, TopKKeepsTheMostLikely) {
  expect_shares({.temperature = 1.0, .top_k = 2}, kLogits, {{2, 0.5 / 0.8}, {0, 0.3 / 0.8}});
  expect_shares({.temperature = 1.0, .top_k = 1}, kLogits, {{2, 1.0}});
  expect_shares({.temperature = 1.0, .top_k = 99}, kLogits,
                {{0, 0.3}, {1, 0.05}, {2, 0.5}, {3, 0.15}});
}

TEST(Sampler, TopPKeepsWhatReachesIt) {
  expect_shares({.temperature = 1.0, .top_p = 0.7}, kLogits, {{2, 0.5 / 0.8}, {0, 0.3 / 0.8}});
  expect_shares({.temperature = 1.0, .top_p = 0.01}, kLogits, {{2, 1.0}});
  // Of what top_k left, .625 is the largest share.
  expect_shares({.temperature = 1.0, .top_k = 2, .top_p = 0.6}, kLogits, {{2, 1.0}});
}

TEST(Sampler, MinPDropsWhatIsFarBelowTheBest) {
  expect_shares({.temperature = 1.0, .min_p = 0.2}, kLogits,
                {{2, 0.5 / 0.95}, {0, 0.3 / 0.95}, {3, 0.15 / 0.95}});
  expect_shares({.temperature = 1.0, .min_p = 1.0}, kLogits, {{2, 1.0}});
}

TEST(Sampler, RepetitionPenaltyCountsEachTokenOnce) {
  Sampler sampler({.repetition_penalty = 2.0});
  const std::vector<float> logits = {3.0f, 2.0f, -1.0f};
  const std::vector<int32_t> once = {0}, often = {0, 0, 0}, all = {0, 1, 2, 77, -1};
  EXPECT_EQ(sampler.sample(logits, {}), 0);
  EXPECT_EQ(sampler.sample(logits, once), 1);
  EXPECT_EQ(sampler.sample(logits, often), 1);
  EXPECT_EQ(sampler.sample(logits, all), 0);
  EXPECT_EQ(sampler.sample(std::vector<float>{-1.0f, -1.5f}, once), 1);  // -1 became -2
}

TEST(Sampler, SameSeedSameChoices) {
  const auto draw = [](uint64_t seed) {
    Sampler sampler({.temperature = 1.0, .top_p = 0.95, .seed = seed});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 50; ++i) tokens.push_back(sampler.sample(kLogits, {}));
    return tokens;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST(Sampler, SurvivesLogitsThatAreNoNumbers) {
  for (const SamplingParams& params :
       {SamplingParams{.temperature = 1.0}, SamplingParams{.temperature = 1.0, .top_k = 2},
        SamplingParams{.temperature = 1.0, .top_p = 0.5, .min_p = 0.1}}) {
    EXPECT_EQ(histogram(params, {kNan, 1.0f, -kInfinity}, 100).begin()->first, 1);
    EXPECT_EQ(histogram(params, {kNan, kNan}, 100).size(), 1u);
    EXPECT_EQ(histogram(params, {0.0f, kInfinity, 1.0f}, 100).begin()->first, 1);
    EXPECT_EQ(histogram(params, {-kInfinity, -kInfinity}, 100).size(), 1u);
  }
}

TEST(Sampler, ParametersHaveRanges) {
  EXPECT_TRUE(validate(SamplingParams{}).ok());
  EXPECT_EQ(validate({.temperature = -1}).message(), "temperature = -1: must be within 0..100");
  EXPECT_FALSE(validate({.temperature = std::nan("")}).ok());
  EXPECT_FALSE(validate({.top_k = -1}).ok());
  EXPECT_FALSE(validate({.top_p = 0}).ok());
  EXPECT_FALSE(validate({.top_p = 1.1}).ok());
  EXPECT_FALSE(validate({.min_p = -0.1}).ok());
  EXPECT_FALSE(validate({.repetition_penalty = 0}).ok());
}

}  // namespace
}  // namespace atom
