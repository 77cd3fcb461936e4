#include "eval/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "base/parallel.h"
#include "model/model_testing.h"

namespace atom {
namespace {

using testing::load_model;
using testing::Model;
using testing::model_data;
using testing::must;

class PerplexityTest : public ::testing::TestWithParam<const char*> {
 protected:
  // Tiny operators: waking threads for them would take most of the time.
  void SetUp() override { set_thread_count(1); }
  void TearDown() override { set_thread_count(0); }
};
INSTANTIATE_TEST_SUITE_P(Backends, PerplexityTest, ::testing::ValuesIn(testing::kBackends),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(PerplexityTest, WindowLossesAreThoseOfTransformers) {
  for (const char* name : testing::kTinyModels) {
    const testing::Golden golden = testing::read_golden(name);
    const std::vector<int32_t>& tokens = golden.prompts.back().tokens;
    // One window in three chunks; one at a time; three side by side, the last group short.
    for (const int64_t max_tokens : {6, 16, 50}) {
      const Model model =
          load_model(model_data(name), GetParam(), {.max_tokens = max_tokens, .max_logit_rows = 7});
      std::vector<int64_t> seen;
      const PerplexityResult result =
          must(measure_perplexity(*model.decoder, tokens, {.context = 16},
                                  [&](int64_t window, double) { seen.push_back(window); }));
      EXPECT_EQ(result.windows, 4);  // 75 tokens: the last 11 are dropped
      EXPECT_EQ(result.tokens, 64);
      EXPECT_EQ(seen, (std::vector<int64_t>{0, 1, 2, 3}));
      double mean = 0;
      for (size_t w = 0; w < 4; ++w) {
        EXPECT_NEAR(result.window_losses[w], golden.window_losses[w], 2e-5)
            << name << ", window " << w << ", " << max_tokens << " tokens at once";
        mean += golden.window_losses[w] / 4;
      }
      EXPECT_NEAR(std::log(result.perplexity), mean, 2e-5);
    }
  }
}

TEST_P(PerplexityTest, StopsAfterTheWindowsAskedFor) {
  const testing::Golden golden = testing::read_golden("llama");
  const Model model = load_model(model_data("llama"), GetParam(), {.max_tokens = 64});
  const PerplexityResult result = must(measure_perplexity(
      *model.decoder, golden.prompts.back().tokens, {.context = 16, .max_windows = 3}));
  EXPECT_EQ(result.windows, 3);
  EXPECT_NEAR(result.window_losses[2], golden.window_losses[2], 2e-5);
}

TEST_P(PerplexityTest, RefusesWhatItCannotMeasure) {
  const Model model =
      load_model(model_data("llama"), GetParam(), {.max_tokens = 64, .positions = 32});
  const auto refusal = [&](const std::vector<int32_t>& tokens, int64_t context) {
    return measure_perplexity(*model.decoder, tokens, {.context = context}).status().message();
  };
  const std::vector<int32_t> tokens(20, 5);
  EXPECT_EQ(refusal(tokens, 21), "the text has 20 tokens, a window needs 21");
  EXPECT_EQ(refusal(tokens, 33), "a window of 33 tokens is not within 2..32");
  EXPECT_EQ(refusal(tokens, 1), "a window of 1 tokens is not within 2..32");
  EXPECT_EQ(refusal(std::vector<int32_t>(20, 500), 10),
            "token id 500 is beyond the vocabulary of 128");
}

// The first window of WikiText-2's test text: the start of the published figure.
TEST(SmolLm2Perplexity, FirstWindowIsThatOfTransformers) {
  const auto path = testing::smollm2_path();
  if (path.empty()) {
    std::fprintf(stderr, "%s\n", testing::kNoSmolLm2);
    GTEST_SKIP() << testing::kNoSmolLm2;
  }
  const PerplexityOptions options{.context = 2048};
  const Model model = load_model(path, "cpu", perplexity_limits(0, options));
  const Json json = must(read_json_file(model_data("smollm2-135m-q4_1.json")));
  const JsonView window = must(JsonView(json, "smollm2").at("window"));
  const auto tokens = testing::json_array<int32_t>(must(window.at("tokens")));
  const PerplexityResult result = must(measure_perplexity(*model.decoder, tokens, options));
  ASSERT_EQ(result.windows, 1);
  std::printf("loss %.6f in %.1f s\n", result.window_losses[0], result.seconds);
  EXPECT_NEAR(result.window_losses[0], must(window.get_number("loss")), 1e-4);
}

}  // namespace
}  // namespace atom
