#include "engine/generator.h"

#include <gtest/gtest.h>

#include "base/parallel.h"
#include "model/model_testing.h"

namespace atom {
namespace {

using testing::load_model;
using testing::Model;
using testing::model_data;
using testing::must;

class GeneratorTest : public ::testing::TestWithParam<const char*> {
 protected:
  // Greedy decoding the slow way: the whole text is run again for every token.
  static std::vector<int32_t> expected(Decoder& decoder, std::vector<int32_t> tokens, int count) {
    const size_t length = tokens.size();
    for (int i = 0; i < count; ++i) {
      const std::vector<float> logits = testing::run_prompt(
          decoder, {tokens, {static_cast<int32_t>(tokens.size() - 1)}}, 1 << 20);
      tokens.push_back(
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    }
    return {tokens.begin() + static_cast<int64_t>(length), tokens.end()};
  }
  static bool go_on(int32_t) { return true; }
  // Thousands of tiny operators: waking threads for them would take most of the time.
  void SetUp() override { set_thread_count(1); }
  void TearDown() override { set_thread_count(0); }

  const Model model_ = load_model(model_data("qwen3"), GetParam(), {.max_tokens = 64});
  const std::vector<int32_t> prompt_ = {9, 40, 77, 3, 120, 8, 9, 40, 77, 200, 31, 5,
                                        6, 90, 14, 2, 66,  7, 1, 55, 81, 150, 4};
};
INSTANTIATE_TEST_SUITE_P(Backends, GeneratorTest, ::testing::ValuesIn(testing::kBackends),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(GeneratorTest, GreedyTokensAreThoseOfRunningItAllAgain) {
  const Model small = load_model(model_data("qwen3"), GetParam(), {.max_tokens = 10});
  const auto generator = must(Generator::create(*small.decoder, 64));
  std::vector<int32_t> streamed;
  const Generation found =
      must(generator->generate(prompt_, {.max_tokens = 20, .ignore_eos = true}, [&](int32_t token) {
        streamed.push_back(token);
        return true;
      }));
  EXPECT_EQ(found.tokens, expected(*model_.decoder, prompt_, 20));
  EXPECT_EQ(streamed, found.tokens);
  EXPECT_EQ(found.finish, FinishReason::kLength);
  EXPECT_EQ(found.prompt_tokens, 23);
  EXPECT_EQ(found.reused_tokens, 0);
  EXPECT_GT(found.prefill_seconds, 0);
  EXPECT_GT(found.decode_seconds, 0);
}

TEST_P(GeneratorTest, GoesOnFromWhatTheCacheHolds) {
  const auto generator = must(Generator::create(*model_.decoder, 64));
  const GenerateOptions options{.max_tokens = 6, .ignore_eos = true};
  const Generation first = must(generator->generate(prompt_, options, go_on));
  // The second turn begins with the first and its answer, of which one page is full.
  std::vector<int32_t> second = prompt_;
  second.insert(second.end(), first.tokens.begin(), first.tokens.end());
  second.insert(second.end(), {11, 12, 13});
  const Generation next = must(generator->generate(second, options, go_on));
  EXPECT_EQ(next.reused_tokens, 16);
  EXPECT_EQ(next.tokens, expected(*model_.decoder, second, 6));
  // The same prompt again, and another one that begins like it.
  const Generation again = must(generator->generate(second, options, go_on));
  EXPECT_EQ(again.reused_tokens, 16);
  EXPECT_EQ(again.tokens, next.tokens);
  std::vector<int32_t> other(prompt_.begin(), prompt_.begin() + 16);
  other.push_back(199);
  const Generation changed = must(generator->generate(other, options, go_on));
  EXPECT_EQ(changed.reused_tokens, 16);
  EXPECT_EQ(changed.tokens, expected(*model_.decoder, other, 6));
}

TEST_P(GeneratorTest, StopsAtTheEndOfTheSequence) {
  // Sampling hot enough that id 2, the models' end, comes sooner or later.
  const auto generator = must(Generator::create(*model_.decoder, 128));
  GenerateOptions options{.max_tokens = 100, .sampling = {.temperature = 3.0}};
  int stopped = 0;
  for (options.sampling.seed = 0; options.sampling.seed < 20; ++options.sampling.seed) {
    const Generation found = must(generator->generate(prompt_, options, go_on));
    EXPECT_EQ(std::count(found.tokens.begin(), found.tokens.end(), 2), 0);
    EXPECT_EQ(found.finish == FinishReason::kStop, found.tokens.size() < 100);
    stopped += found.finish == FinishReason::kStop;
  }
  EXPECT_GT(stopped, 0);
}

TEST_P(GeneratorTest, StopsWhenTheCallbackSaysSo) {
  const auto generator = must(Generator::create(*model_.decoder, 64));
  int left = 3;
  const Generation found = must(generator->generate(prompt_, {.max_tokens = 20, .ignore_eos = true},
                                                    [&](int32_t) { return --left > 0; }));
  EXPECT_EQ(found.tokens.size(), 3u);
  EXPECT_EQ(found.finish, FinishReason::kStop);
}

TEST_P(GeneratorTest, StopsWhenTheContextIsFull) {
  const auto generator = must(Generator::create(*model_.decoder, 32));
  const Generation found =
      must(generator->generate(prompt_, {.max_tokens = 20, .ignore_eos = true}, go_on));
  EXPECT_EQ(found.tokens.size(), 32u - 23u);
  EXPECT_EQ(found.finish, FinishReason::kLength);
}

TEST_P(GeneratorTest, RefusesWhatDoesNotFit) {
  const auto generator = must(Generator::create(*model_.decoder, 23));
  const auto refusal = [&](std::span<const int32_t> prompt, const GenerateOptions& options) {
    return generator->generate(prompt, options, go_on).status().message();
  };
  EXPECT_EQ(refusal({}, {}), "the prompt is empty");
  EXPECT_EQ(refusal(prompt_, {}),
            "the prompt has 23 tokens, which leaves no room in a context of 23");
  const std::vector<int32_t> unknown = {1, 300};
  EXPECT_EQ(refusal(unknown, {}), "token id 300 is beyond the vocabulary of 256");
  EXPECT_EQ(refusal(std::span(prompt_).first(4), {.sampling = {.top_p = 2.0}}),
            "top_p = 2: must be in (0, 1]");
  // A failed call leaves the generator usable.
  EXPECT_EQ(must(generator->generate(std::span(prompt_).first(4),
                                     {.max_tokens = 2, .ignore_eos = true}, go_on))
                .tokens.size(),
            2u);
  EXPECT_EQ(Generator::create(*model_.decoder, 129).status().message(),
            "a context of 129 tokens is not within 1..128");
}

}  // namespace
}  // namespace atom
