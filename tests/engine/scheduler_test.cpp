// Whose turn it is, on sequences of integers.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <numeric>

namespace atom {
namespace {

class SchedulerTest : public ::testing::Test {
 protected:
  std::shared_ptr<Sequence> add(Scheduler& scheduler, int64_t rank, int64_t prompt,
                                int64_t generate, int32_t first_token = 0) {
    auto sequence = std::make_shared<Sequence>();
    sequence->rank = {rank, next_++};
    sequence->tokens.resize(static_cast<size_t>(prompt));
    // Nothing to be shared unless a test asks for it.
    std::iota(sequence->tokens.begin(), sequence->tokens.end(),
              first_token > 0 ? first_token : static_cast<int32_t>(1000 * next_));
    sequence->prompt_length = prompt;
    sequence->scored_from = prompt;
    sequence->limit = prompt + generate;
    scheduler.add(sequence);
    return sequence;
  }

  // Runs a step and gives what it was: tokens by sequence.
  std::map<const Sequence*, int64_t> step(Scheduler& scheduler) {
    std::map<const Sequence*, int64_t> tokens;
    for (const StepSlice& slice : scheduler.plan()) {
      EXPECT_TRUE(scheduler.launch(slice));
      EXPECT_TRUE(scheduler.complete(slice));
      EXPECT_TRUE(tokens.emplace(slice.sequence.get(), slice.count).second);
      if (!slice.samples) continue;
      slice.sequence->tokens.push_back(0);
      if (slice.sequence->length() == slice.sequence->limit) scheduler.remove(*slice.sequence);
    }
    return tokens;
  }

  int64_t next_ = 1;
};

using Plan = std::map<const Sequence*, int64_t>;

TEST_F(SchedulerTest, PromptsComeInChunksBesideTokens) {
  Scheduler scheduler({.max_sequences = 4, .max_batch_tokens = 10, .max_logit_rows = 4}, 100);
  const auto a = add(scheduler, 0, 6, 20), b = add(scheduler, 1, 17, 20);
  EXPECT_EQ(step(scheduler), (Plan{{a.get(), 6}, {b.get(), 4}}));
  EXPECT_EQ(step(scheduler), (Plan{{a.get(), 1}, {b.get(), 9}}));
  EXPECT_EQ(step(scheduler), (Plan{{a.get(), 1}, {b.get(), 4}}));
  EXPECT_EQ(step(scheduler), (Plan{{a.get(), 1}, {b.get(), 1}}));
  // The first prompt that began is the first to go on.
  const auto c = add(scheduler, 3, 12, 20), d = add(scheduler, 2, 12, 20);
  EXPECT_EQ(step(scheduler), (Plan{{a.get(), 1}, {b.get(), 1}, {d.get(), 8}}));
  EXPECT_EQ(step(scheduler), (Plan{{a.get(), 1}, {b.get(), 1}, {d.get(), 4}, {c.get(), 4}}));
}

TEST_F(SchedulerTest, NobodyOvertakesTheFirstThatWaits) {
  Scheduler scheduler({.max_sequences = 8, .max_batch_tokens = 64, .max_logit_rows = 8}, 4);
  const auto running = add(scheduler, 0, 16, 3);
  step(scheduler);
  const auto large = add(scheduler, 1, 48, 1), small = add(scheduler, 2, 1, 1);
  EXPECT_EQ(step(scheduler), (Plan{{running.get(), 1}}));
  EXPECT_EQ(step(scheduler), (Plan{{running.get(), 1}}));
  EXPECT_EQ(running->state, Sequence::State::kEnded);
  EXPECT_EQ(step(scheduler), (Plan{{large.get(), 48}}));
  EXPECT_EQ(step(scheduler), (Plan{{small.get(), 1}}));
}

TEST_F(SchedulerTest, TheLastIsPreemptedAndComesBackFirst) {
  Scheduler scheduler({.max_sequences = 8, .max_batch_tokens = 64, .max_logit_rows = 8}, 4);
  const auto a = add(scheduler, 0, 15, 30), b = add(scheduler, 1, 15, 30);
  step(scheduler);  // 16 tokens each
  step(scheduler);  // 17 each: all four pages
  for (int i = 0; i < 15; ++i) step(scheduler);
  EXPECT_EQ(scheduler.pool().used_pages(), 4);
  EXPECT_EQ(a->length(), 32);
  step(scheduler);
  EXPECT_EQ(step(scheduler), (Plan{{a.get(), 1}}));
  EXPECT_EQ(scheduler.preemptions(), 1);
  EXPECT_EQ(b->state, Sequence::State::kWaiting);
  const int64_t length = b->length();
  const auto c = add(scheduler, 2, 1, 1);
  while (a->state != Sequence::State::kEnded) step(scheduler);
  // Its first page outlived it; the rest runs again, in one go. For c there is a page, but it would
  // be preempted soon.
  EXPECT_EQ(step(scheduler), (Plan{{b.get(), length - kPageTokens}}));
  EXPECT_EQ(c->state, Sequence::State::kWaiting);
}

TEST_F(SchedulerTest, EqualPromptsRunOnce) {
  Scheduler scheduler({.max_sequences = 8, .max_batch_tokens = 64, .max_logit_rows = 8}, 20);
  const auto a = add(scheduler, 0, 48, 4, 1);
  EXPECT_EQ(step(scheduler), (Plan{{a.get(), 48}}));
  const auto b = add(scheduler, 1, 48, 4, 1), c = add(scheduler, 2, 50, 4, 1),
             d = add(scheduler, 3, 30, 4, 1);
  // The last token always runs, even where its page is full.
  EXPECT_EQ(step(scheduler), (Plan{{a.get(), 1}, {b.get(), 16}, {c.get(), 2}, {d.get(), 14}}));
  EXPECT_EQ(scheduler.pool().references(a->pages[0]), 4);
  EXPECT_EQ(scheduler.pool().references(a->pages[1]), 3);
  EXPECT_EQ(scheduler.pool().references(a->pages[2]), 2);
}

TEST_F(SchedulerTest, RowsLimitPromptsWhoseScoresAreWanted) {
  Scheduler scheduler({.max_sequences = 3, .max_batch_tokens = 64, .max_logit_rows = 4}, 20);
  const auto a = add(scheduler, 0, 10, 2);
  a->scored_from = 0;
  const auto b = add(scheduler, 1, 5, 3);
  EXPECT_EQ(step(scheduler), (Plan{{a.get(), 4}, {b.get(), 4}}));
  EXPECT_EQ(step(scheduler), (Plan{{b.get(), 1}, {a.get(), 3}}));
  EXPECT_EQ(step(scheduler), (Plan{{b.get(), 1}, {a.get(), 3}}));
  EXPECT_EQ(a->length(), 11);
}

// A stream of urgent requests holds up an early patient one for a bounded time only.
TEST_F(SchedulerTest, NothingStarves) {
  Scheduler scheduler({.max_sequences = 2, .max_batch_tokens = 8, .max_logit_rows = 2}, 8);
  constexpr int64_t kHeadStart = 32;
  std::shared_ptr<Sequence> patient;
  int64_t steps = 0;
  for (int64_t arrival = 0; patient == nullptr || patient->state != Sequence::State::kEnded;
       ++arrival) {
    if (arrival == 10) {
      patient = add(scheduler, arrival, 5, 3);
    } else {
      add(scheduler, arrival - kHeadStart, 5, 3);
    }
    step(scheduler);
    ASSERT_LT(++steps, 300);
  }
  EXPECT_GT(steps, 40);  // it did wait
}

}  // namespace
}  // namespace atom
