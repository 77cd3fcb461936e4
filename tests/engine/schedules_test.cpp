// Random schedules on a model of integers: whatever requests come, stop or fail, each output is
// what its request alone would have had.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "base/parallel.h"
#include "engine/engine_core.h"
#include "engine/engine_testing.h"
#include "engine/fake_runner.h"
#include "model/model_testing.h"

namespace atom {
namespace {

using testing::FakeRunner;
using testing::FakeRunnerOptions;
using testing::must;
using testing::RecordingSink;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kSchedules = 3000;
#else
constexpr int kSchedules = 50000;  // twice: with and without a runner that overlaps
#endif

struct Expected {
  std::vector<int32_t> tokens;
  FinishReason reason = FinishReason::kLength;
};

// What a request's output is when nothing else runs.
Expected run_alone(const Request& request, int choice, int64_t context) {
  SamplingParams params = request.sampling;
  if (choice > 0) params.seed = Random(params.seed + static_cast<uint64_t>(choice)).next();
  Sampler sampler(params, request.prompt);
  SamplingScratch scratch;
  Expected expected;
  std::vector<int32_t> tokens = request.prompt;
  const auto most =
      std::min(request.max_tokens, context - static_cast<int64_t>(request.prompt.size()));
  std::vector<float> logits(testing::kFakeVocab);
  while (static_cast<int64_t>(expected.tokens.size()) < most) {
    testing::fake_logits(tokens, logits);
    const int32_t token = sampler.sample(logits, scratch);
    if ((token == testing::kFakeEnd && !request.ignore_eos) ||
        std::count(request.stop_ids.begin(), request.stop_ids.end(), token) > 0) {
      expected.reason = FinishReason::kStop;
      break;
    }
    tokens.push_back(token);
    expected.tokens.push_back(token);
  }
  return expected;
}

class Schedule {
 public:
  Schedule(uint64_t seed, bool overlaps) : random_(seed) {
    FakeRunnerOptions runner;
    runner.pages = 2 + random_.below(random_.below(2) == 0 ? 4 : 14);
    runner.context = 8 + random_.below(120);
    runner.max_logit_rows = 1 + random_.below(8);
    runner.max_tokens = runner.max_logit_rows + random_.below(40);
    runner.overlaps = overlaps;
    runner.started_ahead = &started_ahead;
    runner.drawn_ahead = &drawn_ahead;
    runner.failures = random_.below(4) == 0 ? 5 + random_.below(50) : 0;
    fails_ = runner.failures > 0;
    EngineOptions options;
    options.max_sequences = 1 + random_.below(runner.max_logit_rows);
    options.max_batch_tokens =
        options.max_sequences + random_.below(runner.max_tokens - options.max_sequences + 1);
    options.prefix_cache = random_.below(4) > 0;
    if (random_.below(3) == 0) options.cache_pages = random_.below(runner.pages);
    core_ = must(EngineCore::create(std::make_unique<FakeRunner>(runner, random_.next()), options));
    common_.resize(static_cast<size_t>(core_->options().context));
    for (int32_t& token : common_) token = some_token();
  }

  void run() {
    const int64_t requests = 1 + random_.below(8);
    int64_t left = requests;
    bool busy = false;
    int64_t steps = 0, most_steps = 0;
    while (busy || left > 0) {
      if (left > 0 && (!busy || random_.below(2) == 0)) {
        most_steps += submit();
        --left;
      }
      if (random_.below(16) == 0) disturb();
      busy = core_->step();
      check_pages();
      // The first sequence that runs advances in every step. What it did is lost only to one that
      // goes before it, so that none waits for ever.
      ASSERT_LE(++steps, (most_steps + 4) * requests) << "no progress";
      if (::testing::Test::HasFailure()) return;
    }
    const EngineStats stats = core_->stats();
    EXPECT_EQ(stats.running + stats.waiting + stats.used_pages, 0);
    EXPECT_EQ(stats.requests_finished + stats.requests_cancelled + stats.requests_failed, requests);
    EXPECT_EQ(core_->waiting_requests(), 0);
    EXPECT_EQ(core_->waiting_prompt_tokens(), 0);
    for (const Submitted& submitted : submitted_) check(submitted);
    preemptions = stats.preemptions;
    cached_tokens = stats.cached_tokens;
    failed_steps = stats.failed_steps;
  }

  int64_t preemptions = 0, cached_tokens = 0, failed_steps = 0, cancelled = 0, poisoned = 0;
  int64_t started_ahead = 0, drawn_ahead = 0;

 private:
  struct Submitted {
    RequestId id = 0;
    Request request;
    std::shared_ptr<RecordingSink> sink;
    bool cancelled = false;
    std::vector<bool> stopped;
    int64_t enough = -1;
    bool poisoned = false;
  };

  int32_t some_token() { return static_cast<int32_t>(random_.below(testing::kFakePoison)); }

  // The most steps that the request can take when it is the first.
  int64_t submit() {
    Submitted submitted;
    Request& request = submitted.request;
    const int64_t context = core_->options().context;
    const int64_t length =
        1 + random_.below(random_.below(2) == 0 ? context - 1 : std::min<int64_t>(context - 1, 20));
    const int64_t shared = random_.below(2) == 0 ? random_.below(length + 1) : length;
    request.prompt.assign(common_.begin(), common_.begin() + shared);
    while (static_cast<int64_t>(request.prompt.size()) < length) {
      request.prompt.push_back(some_token());
    }
    request.max_tokens = random_.below(8) == 0 ? 0 : 1 + random_.below(80);
    request.choices = random_.below(3) == 0 ? static_cast<int>(1 + random_.below(4)) : 1;
    if (const int64_t kind = random_.below(3); kind > 0) {
      request.sampling = {.temperature = 2 * random_.uniform(),
                          .top_k = random_.below(2) * 5,
                          .top_p = random_.below(2) == 0 ? 1.0 : 0.8,
                          .min_p = static_cast<double>(random_.below(2)) * 0.1};
      // Else the runner draws.
      if (kind == 1) {
        request.sampling.repetition_penalty = 1.2;
        request.sampling.presence_penalty = 0.5;
      }
    }
    request.sampling.seed = random_.next();
    request.ignore_eos = random_.below(2) == 0;
    if (random_.below(4) == 0) request.stop_ids = {some_token()};
    request.priority = static_cast<int>(random_.below(5)) - 2;
    request.cache_salt = static_cast<uint64_t>(random_.below(6) == 0 ? 1 : 0);
    if (random_.below(6) == 0) request.prompt_logprobs = static_cast<int>(random_.below(4));
    if (random_.below(6) == 0) request.logprobs = static_cast<int>(random_.below(4));
    if (random_.below(12) == 0) {
      request.prompt[static_cast<size_t>(random_.below(length))] = testing::kFakePoison;
      submitted.poisoned = true;
      ++poisoned;
    }
    submitted.sink = std::make_shared<RecordingSink>();
    if (random_.below(8) == 0) {
      submitted.enough = 1 + random_.below(10);
      submitted.sink->set_enough(submitted.enough);
    }
    submitted.id = ++last_id_;
    submitted.stopped.resize(static_cast<size_t>(request.choices));
    request.sink = submitted.sink;
    EXPECT_TRUE(core_->validate(request).ok());
    core_->add(submitted.id, request, EngineClock::now());
    const int64_t work = (length + request.max_tokens + 4) * request.choices;
    submitted_.push_back(std::move(submitted));
    // Failed steps are repeated; an overlapped step takes two turns.
    return (fails_ ? 4 : 2) * work;
  }

  void disturb() {
    if (submitted_.empty()) return;
    Submitted& some =
        submitted_[static_cast<size_t>(random_.below(static_cast<int64_t>(submitted_.size())))];
    const bool ended = some.sink->ended();
    if (random_.below(2) == 0) {
      core_->cancel(some.id);
      some.cancelled |= !ended;
      ++cancelled;
    } else {
      const int64_t choice = random_.below(some.request.choices);
      core_->stop_choice(some.id, static_cast<int>(choice));
      if (!ended) some.stopped[static_cast<size_t>(choice)] = true;
    }
  }

  void check_pages() const {
    const EngineStats stats = core_->stats();
    EXPECT_GE(stats.used_pages, 0);
    EXPECT_EQ(stats.used_pages + stats.cached_pages + stats.free_pages, stats.pages);
  }

  void check(const Submitted& s) const {
    ASSERT_TRUE(s.sink->ended());
    ASSERT_EQ(s.sink->choice_ends().size(), static_cast<size_t>(s.request.choices));
    for (int choice = 0; choice < s.request.choices; ++choice) {
      const std::vector<int32_t> tokens = s.sink->tokens(choice);
      const ChoiceEnd& end = s.sink->choice_ends().at(choice);
      if (s.poisoned) {
        EXPECT_TRUE(tokens.empty());
        EXPECT_TRUE(end.reason == FinishReason::kError || s.cancelled ||
                    s.stopped[static_cast<size_t>(choice)]);
        continue;
      }
      Expected expected = run_alone(s.request, choice, core_->options().context);
      if (s.enough > 0 && static_cast<int64_t>(expected.tokens.size()) >= s.enough) {
        expected.tokens.resize(static_cast<size_t>(s.enough));
        expected.reason = FinishReason::kStop;
      }
      const bool cut = end.reason == FinishReason::kCancelled || end.reason == FinishReason::kStop;
      if (cut && (s.cancelled || s.stopped[static_cast<size_t>(choice)])) {
        ASSERT_LE(tokens.size(), expected.tokens.size());
        expected.tokens.resize(tokens.size());
      } else if (fails_ && end.reason == FinishReason::kError) {
        // Alone too it met a failure.
        ASSERT_LE(tokens.size(), expected.tokens.size());
        expected.tokens.resize(tokens.size());
      } else {
        EXPECT_EQ(end.reason, expected.reason);
      }
      EXPECT_EQ(tokens, expected.tokens)
          << "choice " << choice << ", " << finish_reason_name(end.reason) << ", enough "
          << s.enough << ", most " << s.request.max_tokens;
      check_scores(s, choice);
    }
  }

  void check_scores(const Submitted& s, int choice) const {
    for (const ScoredToken& token : s.sink->scored(choice)) {
      ASSERT_EQ(token.top.size(), static_cast<size_t>(std::max(0, s.request.logprobs)));
    }
    const bool whole =
        s.request.prompt_logprobs >= 0 && choice == 0 && s.sink->reason(0) == FinishReason::kLength;
    if (!whole) return;
    ASSERT_EQ(s.sink->prompt().size(), s.request.prompt.size());
    std::vector<float> logits(testing::kFakeVocab);
    for (size_t t = 0; t < s.request.prompt.size(); ++t) {
      const ScoredToken& score = s.sink->prompt()[t];
      ASSERT_EQ(score.token, s.request.prompt[t]);
      if (t == 0) {
        ASSERT_TRUE(std::isnan(score.logprob));
        continue;
      }
      testing::fake_logits(std::span(s.request.prompt).first(t), logits);
      double sum = 0;
      for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
      const double logprob = logits[static_cast<size_t>(score.token)] - std::log(sum);
      ASSERT_NEAR(score.logprob, logprob, 1e-5);
      ASSERT_EQ(score.top.size(), static_cast<size_t>(s.request.prompt_logprobs));
    }
  }

  Random random_;
  std::unique_ptr<EngineCore> core_;
  std::vector<int32_t> common_;  // beginnings of prompts
  std::vector<Submitted> submitted_;
  RequestId last_id_ = 0;
  bool fails_ = false;
};

class SchedulesTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override { set_thread_count(1); }
  void TearDown() override { set_thread_count(0); }
};
INSTANTIATE_TEST_SUITE_P(Runners, SchedulesTest, ::testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "Overlapping" : "Waiting");
});

TEST_P(SchedulesTest, EachOutputIsThatOfItsRequestAlone) {
  int64_t preemptions = 0, cached_tokens = 0, failed_steps = 0, cancelled = 0, poisoned = 0;
  int64_t started_ahead = 0, drawn_ahead = 0;
  for (uint64_t seed = 0; seed < kSchedules; ++seed) {
    Schedule schedule(seed, GetParam());
    schedule.run();
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
    preemptions += schedule.preemptions;
    cached_tokens += schedule.cached_tokens;
    failed_steps += schedule.failed_steps;
    cancelled += schedule.cancelled;
    poisoned += schedule.poisoned;
    started_ahead += schedule.started_ahead;
    drawn_ahead += schedule.drawn_ahead;
  }
  // The schedules did meet what they are for.
  EXPECT_GT(preemptions, kSchedules / 10);
  EXPECT_GT(cached_tokens, kSchedules);
  EXPECT_GT(failed_steps, kSchedules / 10);
  EXPECT_GT(cancelled, kSchedules / 10);
  EXPECT_GT(poisoned, kSchedules / 10);
  if (GetParam()) {
    EXPECT_GT(started_ahead, kSchedules);
    EXPECT_GT(drawn_ahead, kSchedules);
  }
}

}  // namespace
}  // namespace atom
