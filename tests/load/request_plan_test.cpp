#include "load/request_plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "load/prompt_source.h"

namespace atom {
namespace {

Trace trace_of(int64_t requests) {
  Trace trace;
  trace.has_arrivals = true;
  for (int64_t i = 0; i < requests; ++i) {
    trace.requests.push_back(
        {.arrival_s = static_cast<double>(i), .prompt_tokens = 10 + i, .output_tokens = 1 + i});
  }
  return trace;
}

std::vector<PlannedRequest> all_of(RequestPlan plan) {
  std::vector<PlannedRequest> requests;
  while (const auto request = plan.next()) requests.push_back(*request);
  return requests;
}

TEST(RequestPlan, PoissonArrivals) {
  constexpr int64_t kCount = 20000;
  const auto requests =
      all_of(*RequestPlan::create({.requests = kCount, .seed = 3, .rate = 50}, nullptr));
  ASSERT_EQ(requests.size(), static_cast<size_t>(kCount));
  // Gaps are exponential: mean and deviation are 1/rate, and a share of 1/e is longer than that.
  double previous = 0, sum = 0, squares = 0, longer = 0;
  for (const PlannedRequest& request : requests) {
    const double gap = request.arrival_s - previous;
    ASSERT_GE(gap, 0);
    previous = request.arrival_s;
    sum += gap;
    squares += gap * gap;
    longer += gap > 0.02;
  }
  const double mean = sum / kCount;
  EXPECT_NEAR(mean * 50, 1, 0.03);
  EXPECT_NEAR(std::sqrt(squares / kCount - mean * mean) * 50, 1, 0.05);
  EXPECT_NEAR(longer / kCount, std::exp(-1.0), 0.02);
}

TEST(RequestPlan, DrawsEachRequestOfTheTraceBeforeAnyComesAgain) {
  const Trace trace = trace_of(50);
  const auto requests = all_of(*RequestPlan::create({.requests = 100, .seed = 1}, &trace));
  for (const size_t begin : {size_t{0}, size_t{50}}) {
    std::set<int64_t> lengths;
    for (size_t i = begin; i < begin + 50; ++i) {
      lengths.insert(requests[i].prompt_tokens);
      EXPECT_EQ(requests[i].max_tokens, requests[i].prompt_tokens - 9);
    }
    EXPECT_EQ(lengths.size(), 50u);
  }
  EXPECT_NE(requests[0].prompt_tokens, 10);  // not in the order of the file
}

TEST(RequestPlan, ArrivalsOfTheTrace) {
  const Trace trace = trace_of(5);
  const auto requests =
      all_of(*RequestPlan::create({.context = 15, .trace_arrivals = true, .speed = 2}, &trace));
  ASSERT_EQ(requests.size(), 3u);  // 10 + 1, 11 + 2 and 12 + 3 tokens
  EXPECT_EQ(requests[2].arrival_s, 1);
  EXPECT_EQ(requests[2].prompt_tokens, 12);
}

TEST(RequestPlan, RefusesWhatCannotBe) {
  Trace trace = trace_of(5);
  EXPECT_FALSE(RequestPlan::create({.context = 5}, &trace).ok());
  trace.has_arrivals = false;
  EXPECT_FALSE(RequestPlan::create({.trace_arrivals = true}, &trace).ok());
}

TEST(PromptSource, DependsOnSeedAndIndexAlone) {
  const PromptSource a = PromptSource::open(std::nullopt, 1).value();
  const PromptSource b = PromptSource::open(std::nullopt, 1).value();
  const PromptSource c = PromptSource::open(std::nullopt, 2).value();
  EXPECT_EQ(a.prompt(7, 50), b.prompt(7, 50));
  EXPECT_NE(a.prompt(7, 50), a.prompt(8, 50));
  EXPECT_NE(a.prompt(7, 50), c.prompt(7, 50));
  // A long shared beginning does not make a prompt longer than wanted.
  EXPECT_EQ(a.prompt(1, 10, 50), a.prompt(2, 10, 50));
  EXPECT_NE(a.prompt(1, 11, 10), a.prompt(2, 11, 10));
}

TEST(TokenFit, FindsTheWordsForALength) {
  const TokenFit fit = *TokenFit::through(10, 23, 60, 123);
  EXPECT_DOUBLE_EQ(fit.tokens_per_word, 2);
  EXPECT_DOUBLE_EQ(fit.overhead, 3);
  EXPECT_EQ(fit.words_for(103), 50);
  EXPECT_EQ(fit.words_for(1), 1);
  EXPECT_FALSE(TokenFit::through(10, 50, 60, 50));
  EXPECT_FALSE(TokenFit::through(10, 50, 60, 20));
}

}  // namespace
}  // namespace atom
