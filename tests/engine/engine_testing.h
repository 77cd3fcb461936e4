// What the tests of the engine share: a sink that keeps everything and checks the order of calls.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <vector>

#include "engine/request.h"

namespace atom::testing {

class RecordingSink : public RequestSink {
 public:
  void on_prompt(int64_t first, std::span<const ScoredToken> tokens) override {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(ended_);
    for (const auto& [choice, output] : outputs_) {
      EXPECT_TRUE(output.empty()) << "the prompt's scores come before any token";
    }
    EXPECT_EQ(first, static_cast<int64_t>(prompt_.size()));
    prompt_.insert(prompt_.end(), tokens.begin(), tokens.end());
  }
  bool on_token(int choice, const ScoredToken& token) override {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(ended_);
    EXPECT_EQ(ends_.count(choice), 0u) << "a token after the output's end";
    outputs_[choice].push_back(token);
    return static_cast<int64_t>(outputs_[choice].size()) != enough_;
  }
  void on_choice_end(int choice, const ChoiceEnd& end) override {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(ended_);
    EXPECT_TRUE(ends_.emplace(choice, end).second) << "an output ended twice";
    EXPECT_EQ(end.tokens, static_cast<int64_t>(outputs_[choice].size()));
    EXPECT_EQ(end.reason == FinishReason::kError, !end.status.ok());
  }
  void on_end(const RequestEnd& end) override {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(ended_);
    ended_ = true;
    end_ = end;
    int64_t tokens = 0;
    for (const auto& [choice, output] : outputs_) tokens += static_cast<int64_t>(output.size());
    EXPECT_EQ(end.generated_tokens, tokens);
  }

  // Wants no more of an output once it has this many tokens.
  void set_enough(int64_t tokens) { enough_ = tokens; }

  // To be read by the engine's thread, or after the end.
  bool ended() const {
    const std::lock_guard lock(mutex_);
    return ended_;
  }
  const RequestEnd& end() const { return end_; }
  const std::map<int, ChoiceEnd>& choice_ends() const { return ends_; }
  FinishReason reason(int choice = 0) const { return ends_.at(choice).reason; }
  const std::vector<ScoredToken>& prompt() const { return prompt_; }
  const std::vector<ScoredToken>& scored(int choice = 0) { return outputs_[choice]; }
  std::vector<int32_t> tokens(int choice = 0) const {
    std::vector<int32_t> ids;
    const auto found = outputs_.find(choice);
    if (found == outputs_.end()) return ids;
    for (const ScoredToken& token : found->second) ids.push_back(token.token);
    return ids;
  }

 private:
  mutable std::mutex mutex_;
  int64_t enough_ = -1;
  std::vector<ScoredToken> prompt_;
  std::map<int, std::vector<ScoredToken>> outputs_;
  std::map<int, ChoiceEnd> ends_;
  bool ended_ = false;
  RequestEnd end_;
};

}  // namespace atom::testing
