#include "eval/rolling.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/parallel.h"
#include "eval/perplexity.h"
#include "model/model_testing.h"

namespace atom {
namespace {

using testing::must;

using Tokens = std::vector<int32_t>;

// The windows of lm-eval 0.4.13: utils.get_rolling_token_windows(range(count), 99, context, 1).
TEST(Rolling, WindowsAreThoseOfLmEval) {
  const auto windows = [](int32_t count, int64_t context) {
    Tokens document;
    for (int32_t i = 0; i < count; ++i) document.push_back(i);
    std::vector<std::pair<Tokens, size_t>> result;
    for (ScoredText& window : rolling_windows(document, 99, context)) {
      result.emplace_back(std::move(window.tokens), window.begin);
    }
    return result;
  };
  using Windows = std::vector<std::pair<Tokens, size_t>>;
  EXPECT_EQ(windows(0, 4), Windows{});
  EXPECT_EQ(windows(3, 4), (Windows{{{99, 0, 1, 2}, 1}}));
  EXPECT_EQ(windows(4, 4), (Windows{{{99, 0, 1, 2, 3}, 1}}));
  EXPECT_EQ(windows(10, 4),
            (Windows{{{99, 0, 1, 2, 3}, 1}, {{3, 4, 5, 6, 7}, 1}, {{5, 6, 7, 8, 9}, 3}}));
  EXPECT_EQ(windows(5, 4), (Windows{{{99, 0, 1, 2, 3}, 1}, {{0, 1, 2, 3, 4}, 4}}));
}

TEST(Rolling, SumsTheLikelihoodsOfTheWindows) {
  set_thread_count(1);
  const testing::Golden golden = testing::read_golden("llama");
  const Tokens& tokens = golden.prompts.back().tokens;
  constexpr int64_t kContext = 16;
  // What begins with the document's first token is a window of the plain perplexity.
  const testing::Model model =
      testing::load_model(testing::model_data("llama"), "cpu", rolling_limits(0, kContext));
  const Tokens rest(tokens.begin() + 1, tokens.end());
  std::vector<ScoredText> windows = rolling_windows(rest, tokens[0], kContext - 1);
  ASSERT_EQ(windows.size(), 5u);
  int64_t done = 0;
  const double first = must(rolling_log_likelihood(*model.decoder, std::span(windows).first(1),
                                                   [&](int64_t count) { done += count; }));
  EXPECT_NEAR(-first / (kContext - 1), golden.window_losses[0], 2e-5);
  EXPECT_EQ(done, 1);
  double sum = 0;
  for (const ScoredText& window : windows) {
    sum += must(rolling_log_likelihood(*model.decoder, std::span(&window, 1)));
  }
  EXPECT_NEAR(must(rolling_log_likelihood(*model.decoder, windows)), sum, 1e-3);
  set_thread_count(0);
}

}  // namespace
}  // namespace atom
