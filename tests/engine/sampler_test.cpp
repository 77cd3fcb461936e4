#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "base/random.h"
#include "ops/argmax.h"

namespace atom {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

int32_t choose(Sampler& sampler, std::vector<float> logits,
               std::span<const uint64_t> allowed = {}) {
  SamplingScratch scratch;
  return sampler.sample(logits, scratch, allowed);
}

// How often each token comes out of n draws.
std::map<int32_t, int> histogram(const SamplingParams& params, const std::vector<float>& logits,
                                 int n = 20000) {
  Sampler sampler(params);
  std::map<int32_t, int> counts;
  for (int i = 0; i < n; ++i) ++counts[choose(sampler, logits)];
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
  EXPECT_EQ(choose(sampler, kLogits), 2);
  EXPECT_EQ(choose(sampler, {1, 4, 4, 2}), 1);  // the first of equals
  EXPECT_EQ(choose(sampler, {kNan, -5, kNan, -7}), 1);
  EXPECT_EQ(choose(sampler, {kNan, kNan}), 0);
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
  const std::vector<float> logits = {3.0f, 2.0f, -1.0f};
  const auto first_choice = [&](const std::vector<int32_t>& prompt, std::vector<float> row) {
    Sampler sampler({.repetition_penalty = 2.0}, prompt);
    return choose(sampler, std::move(row));
  };
  EXPECT_EQ(first_choice({}, logits), 0);
  EXPECT_EQ(first_choice({0}, logits), 1);
  EXPECT_EQ(first_choice({0, 0, 0}, logits), 1);
  EXPECT_EQ(first_choice({0, 1, 2, 77, -1}, logits), 0);
  EXPECT_EQ(first_choice({0}, {-1.0f, -1.5f}), 1);  // -1 became -2
  // Its own choices count too.
  Sampler sampler({.repetition_penalty = 2.0});
  EXPECT_EQ(choose(sampler, logits), 0);
  EXPECT_EQ(choose(sampler, logits), 1);
  EXPECT_EQ(choose(sampler, logits), 0);
}

TEST(Sampler, PresenceAndFrequencyPenaltiesCountTheOutput) {
  const std::vector<int32_t> prompt = {0, 0, 0};
  Sampler presence({.presence_penalty = 1.5}, prompt);
  std::vector<int32_t> chosen;
  for (int i = 0; i < 4; ++i) chosen.push_back(choose(presence, {3.0f, 2.0f, 1.0f}));
  EXPECT_EQ(chosen, (std::vector<int32_t>{0, 1, 0, 0}));  // 3, 2 | 1.5, 2 | 1.5, .5, 1
  Sampler frequency({.frequency_penalty = 0.75}, prompt);
  chosen.clear();
  for (int i = 0; i < 6; ++i) chosen.push_back(choose(frequency, {3.0f, 2.0f, 1.0f}));
  EXPECT_EQ(chosen, (std::vector<int32_t>{0, 0, 1, 0, 1, 2}));
}

TEST(Sampler, BiasIsAdded) {
  Sampler sampler({.logit_bias = {{2, 5.0f}, {0, -1.0f}, {77, 100.0f}}});
  EXPECT_EQ(choose(sampler, {3.0f, 2.5f, -2.4f}), 2);
  EXPECT_EQ(choose(sampler, {3.0f, 2.5f, -2.6f}), 1);
  Sampler banned({.temperature = 1.0, .logit_bias = {{0, -100.0f}}});
  for (int i = 0; i < 100; ++i) EXPECT_NE(choose(banned, {1.0f, 0.0f, 0.5f}), 0);
}

TEST(Sampler, ChoosesOnlyWhatIsAllowed) {
  std::vector<float> logits(130);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 7);
  std::vector<uint64_t> allowed = {uint64_t{1} << 3, 0, 2};  // 3 and 129
  for (const double temperature : {0.0, 1.0}) {
    Sampler sampler({.temperature = temperature, .seed = 5});
    std::map<int32_t, int> counts;
    for (int i = 0; i < 200; ++i) ++counts[choose(sampler, logits, allowed)];
    for (const auto& [token, count] : counts) EXPECT_TRUE(token == 3 || token == 129) << token;
    EXPECT_EQ(counts.size(), temperature == 0.0 ? 1u : 2u);
    EXPECT_EQ(choose(sampler, std::vector<float>(130, kNan), allowed), 3);
    EXPECT_EQ(choose(sampler, std::vector<float>(130, -kInfinity), allowed), 3);
    allowed[2] |= 1u << 5;  // beyond the vocabulary
    EXPECT_EQ(choose(sampler, logits, std::vector<uint64_t>{0, 0, 1u << 5}), -1);
  }
}

// A vocabulary of a real size, whose filters cannot look at a few candidates only.
TEST(Sampler, FiltersAgreeWithSorting) {
  Random random(3);
  for (const int64_t vocab : {1, 63, 65, 1000, 5001}) {
    for (int round = 0; round < 20; ++round) {
      std::vector<float> logits(static_cast<size_t>(vocab));
      // Few distinct values in some rounds: ties must be cut by id.
      for (float& x : logits) {
        x = round % 2 == 0 ? static_cast<float>(random.normal())
                           : static_cast<float>(random.below(5));
      }
      const SamplingParams params{
          .temperature = 0.2 + 2 * random.uniform(),
          .top_k = random.below(3) == 0 ? 1 + random.below(2 * vocab) : 0,
          .top_p = random.below(3) == 0 ? 1.0 : 0.02 + 0.98 * random.uniform(),
          .min_p = random.below(3) == 0 ? 0.5 * random.uniform() : 0.0,
          .seed = random.next()};
      std::vector<RankedToken> sorted;
      for (int64_t i = 0; i < vocab; ++i) {
        sorted.push_back({logits[static_cast<size_t>(i)], static_cast<int32_t>(i)});
      }
      std::sort(sorted.begin(), sorted.end(), ranks_before);
      if (params.top_k > 0 && params.top_k < vocab)
        sorted.resize(static_cast<size_t>(params.top_k));
      double all = 0, before = 0;
      const auto weight = [&](const RankedToken& t) {
        return std::exp((static_cast<double>(t.logit) - sorted[0].logit) / params.temperature);
      };
      for (const RankedToken& t : sorted) all += weight(t);
      std::vector<bool> kept(static_cast<size_t>(vocab));
      for (const RankedToken& t : sorted) {
        if (before > 0 &&
            (before >= (params.top_p + 1e-5) * all || weight(t) < (params.min_p - 1e-5))) {
          break;
        }
        before += weight(t);
        kept[static_cast<size_t>(t.id)] = true;
      }
      Sampler sampler(params);
      for (int i = 0; i < 50; ++i) {
        const int32_t token = choose(sampler, logits);
        ASSERT_TRUE(token >= 0 && token < vocab && kept[static_cast<size_t>(token)])
            << token << " of " << vocab << ", round " << round;
      }
    }
  }
}

TEST(Sampler, SameSeedSameChoices) {
  const auto draw = [](uint64_t seed) {
    Sampler sampler({.temperature = 1.0, .top_p = 0.95, .seed = seed});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 50; ++i) tokens.push_back(choose(sampler, kLogits));
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

// What the engine leaves to the device.
TEST(Sampler, TakesTheArgmaxWhereNothingElseIsAsked) {
  const SamplingParams plain = {.top_k = 3, .top_p = 0.5, .min_p = 0.1, .seed = 5};
  Random random(6);
  SamplingScratch scratch;
  Sampler sampler(plain, std::vector<int32_t>{1, 2});
  for (int i = 0; i < 200; ++i) {
    std::vector<float> logits(static_cast<size_t>(1 + random.below(90)));
    for (float& logit : logits) {
      const int64_t kind = random.below(20);
      logit = kind == 0   ? kNan
              : kind == 1 ? -kInfinity
                          : static_cast<float>(random.below(8)) - 4;  // ties
    }
    if (i % 10 == 0) std::ranges::fill(logits, i % 20 == 0 ? kNan : -kInfinity);
    EXPECT_EQ(argmax(logits), sampler.sample(logits, scratch)) << i;
  }
}

// What the engine leaves to the runner.
TEST(Sampler, DrawsBySeedAndNumber) {
  Random random(8);
  DrawScratch draw_scratch;
  SamplingScratch scratch;
  for (int round = 0; round < 100; ++round) {
    const SamplingParams params = {
        .temperature = 2 * random.uniform(),
        .top_k = random.below(4) == 0 ? 1 + random.below(9) : 0,
        .top_p = random.below(3) == 0 ? 0.1 + 0.9 * random.uniform() : 1.0,
        .min_p = random.below(3) == 0 ? random.uniform() : 0.0,
        .seed = random.next()};
    ASSERT_TRUE(keeps_logits(params));
    Sampler sampler(params);
    const Sampler other(params);
    for (int64_t i = 0; i < 10; ++i) {
      std::vector<float> logits(70);
      for (float& logit : logits) logit = static_cast<float>(random.normal());
      const int32_t drawn = draw_token(logits, other.draw_at(i), draw_scratch);
      ASSERT_EQ(sampler.sample(logits, scratch), drawn) << round << " " << i;
    }
  }
  EXPECT_EQ(Sampler({.temperature = 1.0, .seed = 3}).draw_at(2).random, [] {
    Random sequence(3);
    sequence.next();
    sequence.next();
    return sequence.next();
  }());
  EXPECT_FALSE(keeps_logits({.repetition_penalty = 1.1}));
  EXPECT_FALSE(keeps_logits({.presence_penalty = -1}));
  EXPECT_FALSE(keeps_logits({.frequency_penalty = 0.1}));
  EXPECT_FALSE(keeps_logits({.logit_bias = {{0, 0.0f}}}));
}

TEST(Sampler, DrawsHoldParametersOfAnySize) {
  EXPECT_EQ(Sampler({}).draw_at(0).scale, 0.0f);
  EXPECT_EQ(Sampler({.temperature = 1.0, .top_k = 1}).draw_at(0).scale, 0.0f);
  const TokenDraw tiny =
      Sampler({.temperature = 5e-324, .top_k = int64_t{1} << 40, .top_p = 5e-324, .min_p = 1.0})
          .draw_at(0);
  EXPECT_EQ(tiny.scale, 1e30f);
  EXPECT_EQ(tiny.top_k, INT32_MAX);
  EXPECT_EQ(tiny.top_p, 1u);
  EXPECT_EQ(tiny.min_weight, kFullWeight);
  const TokenDraw all = Sampler({.temperature = 1.0}).draw_at(0);
  EXPECT_EQ(all.top_p, 0u);
  EXPECT_EQ(all.min_weight, 0u);
  EXPECT_EQ(Sampler({.temperature = 1.0, .top_p = 0.5}).draw_at(0).top_p, uint64_t{1} << 63);
  EXPECT_GT(Sampler({.temperature = 1.0, .top_p = std::nextafter(1.0, 0.0)}).draw_at(0).top_p,
            UINT64_MAX - (1 << 12));
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
  EXPECT_FALSE(validate({.presence_penalty = std::nan("")}).ok());
  EXPECT_FALSE(validate({.frequency_penalty = -101}).ok());
  EXPECT_EQ(validate({.logit_bias = {{4, 1.0f}, {7, 101.0f}}}).message(),
            "logit_bias of token 7 = 101: must be within -100..100");
  EXPECT_FALSE(validate({.logit_bias = {{-1, 1.0f}}}).ok());
}

}  // namespace
}  // namespace atom
