// What the engine does, step by step, on real (tiny) models.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "base/parallel.h"
#include "base/random.h"
#include "engine/decoder_runner.h"
#include "engine/engine_core.h"
#include "engine/engine_testing.h"
#include "engine/fake_runner.h"
#include "engine/generator.h"
#include "model/model_testing.h"

namespace atom {
namespace {

using testing::load_model;
using testing::Model;
using testing::model_data;
using testing::must;
using testing::RecordingSink;

class EngineTest : public ::testing::Test {
 protected:
  void SetUp() override { set_thread_count(1); }
  void TearDown() override { set_thread_count(0); }

  // Prompts that share beginnings, of many lengths.
  static std::vector<std::vector<int32_t>> prompts(int count) {
    Random random(4);
    std::vector<int32_t> common(40);
    for (int32_t& token : common) token = static_cast<int32_t>(3 + random.below(100));
    std::vector<std::vector<int32_t>> all;
    for (int i = 0; i < count; ++i) {
      std::vector<int32_t> prompt(common.begin(), common.begin() + random.below(41));
      for (int64_t more = 1 + random.below(20); more > 0; --more) {
        prompt.push_back(static_cast<int32_t>(3 + random.below(100)));
      }
      all.push_back(std::move(prompt));
    }
    return all;
  }

  static std::vector<std::vector<int32_t>> alone(Decoder& decoder,
                                                 const std::vector<std::vector<int32_t>>& prompts,
                                                 const GenerateOptions& options) {
    std::vector<std::vector<int32_t>> all;
    for (const auto& prompt : prompts) {
      const auto generator = must(Generator::create(decoder, 128));
      all.push_back(
          must(generator->generate(prompt, options, [](int32_t) { return true; })).tokens);
    }
    return all;
  }

  // All prompts at once.
  static EngineStats together(Decoder& decoder, int64_t pages, const EngineOptions& options,
                              const std::vector<std::vector<int32_t>>& prompts,
                              const GenerateOptions& generate,
                              std::vector<std::vector<int32_t>>& tokens) {
    // Without a thread of its own: all requests are there before the first step.
    const auto core = must(EngineCore::create(must(make_decoder_runner(decoder, pages)), options));
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (const auto& prompt : prompts) {
      sinks.push_back(std::make_shared<RecordingSink>());
      core->add(static_cast<RequestId>(sinks.size()),
                {.prompt = prompt,
                 .sampling = generate.sampling,
                 .max_tokens = generate.max_tokens,
                 .ignore_eos = generate.ignore_eos,
                 .sink = sinks.back()},
                EngineClock::now());
    }
    while (core->step()) {
    }
    tokens.clear();
    for (const auto& sink : sinks) {
      EXPECT_TRUE(sink->ended());
      tokens.push_back(sink->tokens());
    }
    return core->stats();
  }

  const Model model_ = load_model(model_data("llama"), "cpu", {.max_tokens = 64});
};

TEST_F(EngineTest, TokensDoNotDependOnWhatElseRuns) {
  const auto all = prompts(16);
  for (const SamplingParams& sampling :
       {SamplingParams{.repetition_penalty = 1.1, .seed = 7},
        SamplingParams{.temperature = 0.8, .repetition_penalty = 1.1, .seed = 7},
        SamplingParams{.temperature = 0.9, .top_k = 90, .top_p = 0.95, .seed = 7}}) {
    const GenerateOptions options = {.max_tokens = 20, .sampling = sampling, .ignore_eos = true};
    const auto expected = alone(*model_.decoder, all, options);
    std::vector<std::vector<int32_t>> tokens;
    EngineStats stats = together(
        *model_.decoder, 200, {.max_sequences = 16, .max_batch_tokens = 64, .prefix_cache = false},
        all, options, tokens);
    EXPECT_EQ(tokens, expected);
    EXPECT_EQ(stats.cached_tokens, 0);
    EXPECT_EQ(stats.preemptions, 0);
    stats = together(*model_.decoder, 200, {.max_sequences = 8, .max_batch_tokens = 24}, all,
                     options, tokens);
    EXPECT_EQ(tokens, expected) << "with prefix reuse";
    EXPECT_GT(stats.cached_tokens, 0);
    stats = together(*model_.decoder, 12, {.max_sequences = 16, .max_batch_tokens = 32}, all,
                     options, tokens);
    EXPECT_EQ(tokens, expected) << "with preemption";
    EXPECT_GT(stats.preemptions, 0);
    EXPECT_EQ(stats.used_pages, 0);
    EXPECT_EQ(stats.requests_finished, 16);
  }
}

// Only who needs logits on the host holds the others up.
TEST(EngineSteps, RunAheadWhereTheRunnerDraws) {
  for (const bool scores : {false, true}) {
    int64_t ahead = 0;
    const auto core = must(EngineCore::create(
        std::make_unique<testing::FakeRunner>(
            testing::FakeRunnerOptions{.pages = 40, .overlaps = true, .started_ahead = &ahead}, 5),
        {.max_sequences = 8, .max_batch_tokens = 16, .context = 0}));
    for (RequestId id = 1; id <= 4; ++id) {
      Request request = {.prompt = {3, static_cast<int32_t>(id)},
                         .sampling = {.temperature = 1.0, .top_p = 0.9, .seed = id},
                         .max_tokens = 40,
                         .ignore_eos = true,
                         .sink = std::make_shared<RecordingSink>()};
      if (scores && id == 2) request.logprobs = 0;
      core->add(id, std::move(request), EngineClock::now());
    }
    while (core->step()) {
    }
    EXPECT_EQ(core->stats().steps, 40);
    EXPECT_EQ(ahead, scores ? 0 : 39);
  }
}

TEST_F(EngineTest, ListsItsSequences) {
  const auto core =
      must(EngineCore::create(must(make_decoder_runner(*model_.decoder, 200)),
                              {.max_sequences = 2, .max_batch_tokens = 64, .context = 0}));
  for (RequestId id = 1; id <= 3; ++id) {
    core->add(id,
              {.prompt = std::vector<int32_t>(20, static_cast<int32_t>(2 + id)),
               .max_tokens = 4,
               .ignore_eos = true,
               .sink = std::make_shared<RecordingSink>()},
              EngineClock::now());
  }
  const auto listed = [&] { return core->stats().sequences; };
  ASSERT_EQ(listed().size(), 3u);
  EXPECT_FALSE(listed()[0].running);
  while (listed()[0].generated_tokens < 2) core->step();
  ASSERT_EQ(listed().size(), 3u);
  const SequenceStats first = listed()[0];
  EXPECT_EQ(first.request, 1u);
  EXPECT_TRUE(first.running);
  EXPECT_EQ(first.prompt_tokens, 20);
  EXPECT_EQ(first.generated_tokens, 2);
  EXPECT_EQ(first.computed_tokens, 21);
  EXPECT_EQ(first.pages, 2);
  EXPECT_EQ(listed()[2].request, 3u);
  EXPECT_FALSE(listed()[2].running);
  EXPECT_EQ(listed()[2].pages, 0);
  while (core->step()) {
  }
  EXPECT_TRUE(listed().empty());
}

}  // namespace
}  // namespace atom
