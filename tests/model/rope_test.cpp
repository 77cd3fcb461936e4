#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/model_testing.h"

namespace atom {
namespace {

using testing::must;

RopeConfig read_rope(const JsonView& golden) {
  RopeConfig rope;
  rope.rotary_dim = must(golden.get_int("head_dim", 2, 1024));
  rope.theta = must(golden.get_number("rope_theta"));
  rope.factor = must(golden.get_number("factor", 1.0));
  rope.original_context = must(golden.get_int("original_max_position_embeddings", 0, 1 << 20, 0));
  rope.low_freq_factor = must(golden.get_number("low_freq_factor", 1.0));
  rope.high_freq_factor = must(golden.get_number("high_freq_factor", 4.0));
  rope.beta_fast = must(golden.get_number("beta_fast", 32.0));
  rope.beta_slow = must(golden.get_number("beta_slow", 1.0));
  rope.attention_factor = must(golden.get_number("attention_factor", 0.0));
  const std::string type = must(golden.get_string("rope_type"));
  rope.scaling = type == "linear"   ? RopeScaling::kLinear
                 : type == "llama3" ? RopeScaling::kLlama3
                 : type == "yarn"   ? RopeScaling::kYarn
                                    : RopeScaling::kNone;
  return rope;
}

TEST(Rope, FrequenciesAreThoseOfTransformers) {
  const Json json = must(read_json_file(testing::model_data("rope.json")));
  const JsonView goldens(json, "rope.json");
  ASSERT_EQ(goldens.size(), 6u);
  for (size_t g = 0; g < goldens.size(); ++g) {
    const JsonView golden = must(goldens.at(g));
    const RopeConfig rope = read_rope(golden);
    const auto expected = testing::json_array<double>(must(golden.at("frequencies")));
    const std::vector<double> found = rope_frequencies(rope);
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      // transformers computes powers in float32.
      EXPECT_NEAR(found[i] / expected[i], 1.0, 1e-5) << "golden " << g << ", pair " << i;
    }
    EXPECT_NEAR(rope_attention_factor(rope), must(golden.get_number("scaling")), 1e-6);
  }
}

TEST(Rope, TableHoldsCosinesAndSinesByPosition) {
  RopeConfig rope;
  rope.rotary_dim = 4;
  rope.theta = 100.0;
  const std::vector<float> table = make_cos_sin(rope, 3);
  ASSERT_EQ(table.size(), 3u * 2 * 2);
  const double frequencies[] = {1.0, 0.1};
  for (size_t position = 0; position < 3; ++position) {
    for (size_t pair = 0; pair < 2; ++pair) {
      const double angle = static_cast<double>(position) * frequencies[pair];
      EXPECT_FLOAT_EQ(table[(position * 2 + pair) * 2], static_cast<float>(std::cos(angle)));
      EXPECT_FLOAT_EQ(table[(position * 2 + pair) * 2 + 1], static_cast<float>(std::sin(angle)));
    }
  }
}

TEST(Rope, TableCarriesTheAttentionFactor) {
  RopeConfig rope;
  rope.rotary_dim = 8;
  rope.scaling = RopeScaling::kYarn;
  rope.factor = 4.0;
  rope.original_context = 64;
  rope.attention_factor = 1.5;
  const std::vector<float> table = make_cos_sin(rope, 5);
  for (size_t i = 0; i < table.size(); i += 2) {
    EXPECT_NEAR(std::hypot(table[i], table[i + 1]), 1.5, 1e-6);
  }
}

// GGUF files of Llama 3 carry its scaling as divisors; both spellings must turn alike.
TEST(Rope, FreqFactorsDivide) {
  RopeConfig llama3;
  llama3.rotary_dim = 64;
  llama3.theta = 500000.0;
  llama3.scaling = RopeScaling::kLlama3;
  llama3.factor = 32.0;
  llama3.original_context = 8192;
  RopeConfig divided;
  divided.rotary_dim = 64;
  divided.theta = 500000.0;
  const std::vector<double> scaled = rope_frequencies(llama3), plain = rope_frequencies(divided);
  for (size_t i = 0; i < plain.size(); ++i) {
    divided.freq_factors.push_back(static_cast<float>(plain[i] / scaled[i]));
  }
  const std::vector<double> found = rope_frequencies(divided);
  EXPECT_EQ(found.front(), plain.front());
  EXPECT_NEAR(found.back(), plain.back() / 32.0, 1e-12);
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i] / scaled[i], 1.0, 1e-6);
}

}  // namespace
}  // namespace atom
