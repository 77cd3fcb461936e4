// The engine's thread among others: submitting, cancelling and draining at any moment.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <memory>
#include <semaphore>
#include <thread>
#include <vector>

#include "base/parallel.h"
#include "engine/engine.h"
#include "engine/engine_testing.h"
#include "engine/fake_runner.h"
#include "model/model_testing.h"

namespace atom {
namespace {

using testing::FakeRunner;
using testing::FakeRunnerOptions;
using testing::must;
using testing::RecordingSink;
using Verdict = Submission::Verdict;

constexpr std::chrono::milliseconds kLong{600000};

// Waits in every batch until the test lets it go on.
class HeldRunner : public FakeRunner {
 public:
  HeldRunner(const FakeRunnerOptions& options, std::counting_semaphore<>& permits)
      : FakeRunner(options, 1), permits_(permits) {}
  Status start(const Batch& batch, int64_t whole_rows) override {
    permits_.acquire();
    return FakeRunner::start(batch, whole_rows);
  }

 private:
  std::counting_semaphore<>& permits_;
};

Request request_of(const std::shared_ptr<RecordingSink>& sink, int64_t length = 20) {
  return {.prompt = std::vector<int32_t>(static_cast<size_t>(length), 3),
          .max_tokens = 8,
          .ignore_eos = true,
          .sink = sink};
}

TEST(EngineThread, ServesManyThreads) {
  set_thread_count(2);
  for (const bool overlaps : {false, true}) {
    FakeRunnerOptions options;
    options.pages = 24;
    options.max_tokens = 32;
    options.overlaps = overlaps;
    const auto engine =
        must(Engine::create(std::make_unique<FakeRunner>(options, 1),
                            {.max_sequences = 8, .max_batch_tokens = 32, .context = 0}));
    std::atomic<int64_t> accepted = 0;
    std::vector<std::vector<std::shared_ptr<RecordingSink>>> sinks(4);
    std::vector<std::thread> threads;
    for (size_t t = 0; t < sinks.size(); ++t) {
      threads.emplace_back([&, t] {
        Random random(t);
        for (int i = 0; i < 60; ++i) {
          const auto sink = std::make_shared<RecordingSink>();
          Request request = request_of(sink, 1 + random.below(50));
          request.choices = static_cast<int>(1 + random.below(3));
          request.sampling.temperature = 1.0;
          const Submission submission = engine->submit(std::move(request));
          ASSERT_TRUE(submission.accepted()) << submission.status.message();
          ++accepted;
          sinks[t].push_back(sink);
          if (random.below(4) == 0) engine->cancel(submission.id);
          if (random.below(4) == 0) engine->stop_choice(submission.id, 0);
          if (random.below(8) == 0) std::this_thread::yield();
          EXPECT_GE(engine->stats().requests_accepted, 1);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(engine->wait_idle(kLong));
    const EngineStats stats = engine->stats();
    EXPECT_EQ(stats.requests_accepted, accepted);
    EXPECT_EQ(stats.requests_finished + stats.requests_cancelled, accepted);
    EXPECT_EQ(stats.used_pages, 0);
    for (const auto& own : sinks) {
      for (const auto& sink : own) EXPECT_TRUE(sink->ended());
    }
  }
  set_thread_count(0);
}

TEST(EngineThread, RejectsBeforeAnyWork) {
  std::counting_semaphore<> permits(0);
  const auto engine =
      must(Engine::create(std::make_unique<HeldRunner>(FakeRunnerOptions{}, permits),
                          {.max_sequences = 1, .max_batch_tokens = 8, .max_waiting_requests = 2}));
  const auto sink = std::make_shared<RecordingSink>();
  const auto refusal = [&](Request request, Verdict verdict) {
    const Submission submission = engine->submit(std::move(request));
    EXPECT_EQ(submission.verdict, verdict);
    EXPECT_EQ(submission.id, 0u);
    return submission.status.message();
  };
  Request request = request_of(sink);
  request.prompt[5] = 13;
  EXPECT_EQ(refusal(request, Verdict::kInvalid), "token id 13 is beyond the vocabulary of 13");
  request = request_of(sink, 64);
  EXPECT_EQ(refusal(request, Verdict::kInvalid),
            "the prompt has 64 tokens, which leaves no room in a context of 64");
  request = request_of(sink);
  request.sampling.logit_bias = {{99, 1.0f}};
  EXPECT_EQ(refusal(request, Verdict::kInvalid),
            "logit_bias: token id 99 is beyond the vocabulary of 13");
  request = request_of(sink);
  request.logprobs = 21;
  EXPECT_EQ(refusal(request, Verdict::kInvalid), "logprobs = 21: must be within -1..20");
  request = request_of(sink);
  request.choices = 0;
  EXPECT_EQ(refusal(request, Verdict::kInvalid), "n = 0: must be within 1..128");

  // One that runs, and two that wait.
  const auto running = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine->submit(request_of(running)).accepted());
  permits.release();
  while (engine->stats().running == 0) std::this_thread::yield();
  const auto first = std::make_shared<RecordingSink>(), second = std::make_shared<RecordingSink>();
  const Submission waiting = engine->submit(request_of(first));
  ASSERT_TRUE(waiting.accepted());
  ASSERT_TRUE(engine->submit(request_of(second)).accepted());
  const Submission full = engine->submit(request_of(sink));
  EXPECT_EQ(full.verdict, Verdict::kQueueFull);
  EXPECT_EQ(full.status.message(), "the queue is full: 2 requests with 40 prompt tokens wait");
  EXPECT_GE(full.retry_after_seconds, 1.0);
  EXPECT_EQ(engine->stats().waiting, 2);

  engine->cancel(waiting.id);
  engine->cancel(12345);
  engine->drain();
  EXPECT_EQ(refusal(request_of(sink), Verdict::kDraining), "the engine takes no more requests");
  EXPECT_FALSE(engine->wait_idle(std::chrono::milliseconds(1)));
  permits.release(1000);
  EXPECT_TRUE(engine->wait_idle(kLong));
  EXPECT_EQ(running->reason(), FinishReason::kLength);
  EXPECT_EQ(first->reason(), FinishReason::kCancelled);
  EXPECT_EQ(second->reason(), FinishReason::kLength);
  EXPECT_FALSE(sink->ended());
  EXPECT_EQ(engine->stats().requests_rejected, 7);
}

TEST(EngineThread, TheDestructorEndsEverything) {
  std::counting_semaphore<> permits(3);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  std::thread release;
  {
    FakeRunnerOptions options;
    options.overlaps = true;
    const auto engine = must(Engine::create(std::make_unique<HeldRunner>(options, permits),
                                            {.max_sequences = 4, .max_batch_tokens = 16}));
    for (int i = 0; i < 10; ++i) {
      sinks.push_back(std::make_shared<RecordingSink>());
      ASSERT_TRUE(engine->submit(request_of(sinks.back())).accepted());
    }
    release = std::thread([&] { permits.release(1000); });
  }
  release.join();
  for (const auto& sink : sinks) {
    ASSERT_TRUE(sink->ended());
    EXPECT_TRUE(sink->reason() == FinishReason::kCancelled ||
                sink->reason() == FinishReason::kLength);
  }
}

// Sinks may call back into the engine.
class ChainingSink : public RecordingSink {
 public:
  ChainingSink(Engine& engine, int left) : engine_(engine), left_(left) {}
  void on_end(const RequestEnd& end) override {
    RecordingSink::on_end(end);
    if (left_ == 0) return;
    next = std::make_shared<ChainingSink>(engine_, left_ - 1);
    EXPECT_TRUE(engine_.submit(request_of(next)).accepted());
    EXPECT_GT(engine_.stats().requests_accepted, 0);
  }
  std::shared_ptr<ChainingSink> next;

 private:
  Engine& engine_;
  int left_;
};

TEST(EngineThread, SinksMaySubmit) {
  const auto engine = must(Engine::create(std::make_unique<FakeRunner>(FakeRunnerOptions{}, 1),
                                          {.max_sequences = 1, .max_batch_tokens = 8}));
  const auto sink = std::make_shared<ChainingSink>(*engine, 5);
  ASSERT_TRUE(engine->submit(request_of(sink)).accepted());
  EXPECT_TRUE(engine->wait_idle(kLong));
  int count = 0;
  for (const ChainingSink* s = sink.get(); s != nullptr; s = s->next.get()) {
    EXPECT_EQ(s->tokens(), sink->tokens());
    ++count;
  }
  EXPECT_EQ(count, 6);
}

TEST(EngineThread, OptionsMustFitTheRunner) {
  const auto refusal = [](const EngineOptions& options) {
    return Engine::create(std::make_unique<FakeRunner>(FakeRunnerOptions{}, 1), options)
        .status()
        .message();
  };
  EXPECT_EQ(refusal({.max_sequences = 9, .max_batch_tokens = 16}),
            "max_sequences = 9: must be within 1..8");
  EXPECT_EQ(refusal({.max_sequences = 8, .max_batch_tokens = 7}),
            "max_batch_tokens = 7: must be within 8..16");
  EXPECT_EQ(refusal({.max_sequences = 8, .max_batch_tokens = 16, .context = 65}),
            "context = 65: must be within 0..64");
}

// Allows only even tokens, and nothing after three.
class EvenTokens : public TokenConstraint {
 public:
  void allowed(std::span<uint64_t> mask) override { mask[0] = taken_ < 3 ? 0b0101010101010100 : 0; }
  Status accept(int32_t token) override {
    EXPECT_EQ(token % 2, 0);
    ++taken_;
    return {};
  }
  std::unique_ptr<TokenConstraint> clone() const override {
    return std::make_unique<EvenTokens>(*this);
  }

 private:
  int taken_ = 0;
};

TEST(EngineThread, ConstraintsMaskTokensAndFailAlone) {
  const auto engine = must(Engine::create(std::make_unique<FakeRunner>(FakeRunnerOptions{}, 1),
                                          {.max_sequences = 4, .max_batch_tokens = 16}));
  const auto constrained = std::make_shared<RecordingSink>();
  const auto free = std::make_shared<RecordingSink>();
  Request request = request_of(constrained);
  request.constraint = std::make_shared<EvenTokens>();
  request.choices = 3;
  request.sampling.temperature = 1.0;
  request.logprobs = 2;
  ASSERT_TRUE(engine->submit(std::move(request)).accepted());
  ASSERT_TRUE(engine->submit(request_of(free)).accepted());
  EXPECT_TRUE(engine->wait_idle(kLong));
  for (int choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(constrained->tokens(choice).size(), 3u);
    for (const int32_t token : constrained->tokens(choice)) EXPECT_EQ(token % 2, 0);
    EXPECT_EQ(constrained->reason(choice), FinishReason::kError);
    EXPECT_EQ(constrained->choice_ends().at(choice).status.message(),
              "no token satisfies the constraint");
    double sum = 0;
    for (const ScoredToken& token : constrained->scored(choice)) {
      sum += token.logprob;
      ASSERT_EQ(token.top.size(), 2u);
      EXPECT_GE(token.top[0].logprob, token.top[1].logprob);
      EXPECT_GE(token.top[0].logprob, token.logprob) << "logprobs come from before the mask";
    }
    EXPECT_NEAR(constrained->choice_ends().at(choice).logprob_sum, sum, 1e-9);
  }
  EXPECT_EQ(free->reason(), FinishReason::kLength);
  EXPECT_EQ(engine->stats().requests_failed, 1);
}

}  // namespace
}  // namespace atom
