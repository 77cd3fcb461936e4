// A model of integers for the tests of the engine: the logits after a token are a hash of all
// tokens that the sequence's pages hold up to it, so that a page with wrong content shows at once.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <set>
#include <vector>

#include "base/random.h"
#include "engine/runner.h"
#include "ops/draw.h"

namespace atom::testing {

inline constexpr int64_t kFakeVocab = 13;
inline constexpr int32_t kFakeEnd = 0;           // end of generation
inline constexpr int32_t kFakePoison = 12;       // a batch that holds it fails
inline constexpr int64_t kFakePrefixTokens = 2;  // which positions start behind

// The logits that follow these tokens; never the poison.
inline void fake_logits(std::span<const int32_t> tokens, std::span<float> logits) {
  uint64_t hash = 1;
  for (const int32_t token : tokens)
    hash = (hash ^ static_cast<uint64_t>(token)) * 0x9e3779b97f4a7c15u + 1;
  Random random(hash);
  for (float& logit : logits) logit = static_cast<float>(random.below(1 << 12)) * 0x1p-9f;
  logits[kFakeEnd] -= 3;
  logits[kFakePoison] = -100;
}

struct FakeRunnerOptions {
  int64_t pages = 8;
  int64_t max_tokens = 16;
  int64_t max_logit_rows = 8;
  int64_t context = 64;
  bool overlaps = false;
  // One batch in so many fails for no reason of its own, half of them halfway; 0: none.
  int64_t failures = 0;
  int64_t* started_ahead = nullptr;  // counts batches that were started while one ran
  int64_t* drawn_ahead = nullptr;    // and those of them that draw tokens
};

class FakeRunner : public Runner {
 public:
  FakeRunner(const FakeRunnerOptions& options, uint64_t seed)
      : options_(options), random_(seed), held_(static_cast<size_t>(options.pages)) {
    limits_ = {.vocab = kFakeVocab,
               .max_tokens = options.max_tokens,
               .max_logit_rows = options.max_logit_rows,
               .pages = options.pages,
               .context = options.context,
               .prefix_tokens = kFakePrefixTokens,
               .eos_ids = {kFakeEnd},
               .overlaps = options.overlaps};
    for (auto& page : held_) page.fill(-1);
  }

  const RunnerLimits& limits() const override { return limits_; }

  Status start(const Batch& batch, int64_t whole_rows) override {
    EXPECT_LE(running_.size(), options_.overlaps ? 1u : 0u);
    if (!running_.empty()) {
      EXPECT_EQ(running_.back().whole_rows, 0) << "logits are wanted first";
      if (options_.started_ahead != nullptr) ++*options_.started_ahead;
      if (options_.drawn_ahead != nullptr && !batch.draws.empty()) ++*options_.drawn_ahead;
    }
    check(batch, whole_rows);
    if (fails()) return error(ErrorCode::kInternal, "the fake device failed to start");
    // Copies all that the batch points to.
    Started started = {.tokens = batch.tokens,
                       .rows = batch.logit_rows,
                       .draws = batch.draws,
                       .slices = batch.sequences,
                       .pages = {},
                       .whole_rows = whole_rows};
    for (const SequenceSlice& slice : batch.sequences) {
      started.pages.emplace_back(slice.pages.begin(), slice.pages.end());
    }
    running_.push_back(std::move(started));
    // Work comes at once, or as late as it may.
    if (random_.below(2) == 0) run_all();
    return {};
  }

  Result<StepOutput> wait() override {
    EXPECT_FALSE(running_.empty());
    run_all();
    last_ = std::move(running_.front());
    running_.pop_front();
    if (last_.failed) return error(ErrorCode::kInternal, "the fake device failed");
    const bool all = last_.whole_rows == static_cast<int64_t>(last_.rows.size());
    return StepOutput{.chosen = all ? std::span<const int32_t>() : last_.chosen,
                      .logits = last_.logits,
                      .seconds = 0};
  }

 private:
  struct Started {
    std::vector<int32_t> tokens;
    std::vector<int32_t> rows;
    std::vector<TokenDraw> draws;
    std::vector<SequenceSlice> slices;
    std::vector<std::vector<int32_t>> pages;
    int64_t whole_rows = 0;
    // Once it ran.
    bool ran = false, failed = false;
    std::vector<int32_t> chosen = {};
    std::vector<float> logits = {};
  };

  void run_all() {
    for (Started& started : running_) {
      if (!started.ran) run(started);
    }
  }

  void run(Started& s) {
    s.ran = true;
    for (int32_t& token : s.tokens) {
      if (token < 0) token = chosen_.at(static_cast<size_t>(-1 - token));
    }
    s.failed =
        fails() || std::find(s.tokens.begin(), s.tokens.end(), kFakePoison) != s.tokens.end();
    size_t row = 0;
    for (size_t i = 0; i < s.slices.size(); ++i) {
      const SequenceSlice& slice = s.slices[i];
      for (int64_t t = 0; t < slice.token_count; ++t) {
        at(s.pages[i], slice.past + t) =
            s.failed ? -2 : s.tokens[static_cast<size_t>(slice.first_token + t)];
      }
      for (; row < s.rows.size() && s.rows[row] < slice.first_token + slice.token_count; ++row) {
        std::vector<int32_t> seen;
        for (int64_t t = 0; t <= slice.past + s.rows[row] - slice.first_token; ++t) {
          seen.push_back(at(s.pages[i], t));
        }
        std::vector<float> logits(kFakeVocab);
        fake_logits(seen, logits);
        const TokenDraw draw = s.draws.empty() ? TokenDraw{} : s.draws.at(row);
        s.chosen.push_back(s.failed ? 1 : draw_token(logits, draw, scratch_));
        if (static_cast<int64_t>(row) < s.whole_rows) {
          s.logits.insert(s.logits.end(), logits.begin(), logits.end());
        }
      }
    }
    chosen_ = s.chosen;
  }

  int32_t& at(const std::vector<int32_t>& pages, int64_t token) {
    return held_[static_cast<size_t>(pages[static_cast<size_t>(token / kPageTokens)])]
                [static_cast<size_t>(token % kPageTokens)];
  }
  bool fails() { return options_.failures > 0 && random_.below(2 * options_.failures) == 0; }

  void check(const Batch& batch, int64_t whole_rows) const {
    EXPECT_GT(batch.size(), 0);
    EXPECT_LE(whole_rows, static_cast<int64_t>(batch.logit_rows.size()));
    const int64_t earlier = running_.empty() ? 0 : static_cast<int64_t>(running_[0].rows.size());
    for (const int32_t token : batch.tokens) EXPECT_TRUE(token >= -earlier && token < kFakeVocab);
    EXPECT_LE(batch.size(), options_.max_tokens);
    EXPECT_LE(static_cast<int64_t>(batch.logit_rows.size()), options_.max_logit_rows);
    EXPECT_TRUE(batch.draws.empty() || batch.draws.size() == batch.logit_rows.size());
    EXPECT_TRUE(std::is_sorted(batch.logit_rows.begin(), batch.logit_rows.end()));
    std::set<int32_t> written, read;
    for (const SequenceSlice& slice : batch.sequences) {
      EXPECT_GE(static_cast<int64_t>(slice.pages.size()) * kPageTokens,
                slice.past + slice.token_count);
      EXPECT_EQ(batch.positions[static_cast<size_t>(slice.first_token)],
                slice.past + kFakePrefixTokens);
      const int64_t last = (slice.past + slice.token_count - 1) / kPageTokens;
      for (int64_t page = 0; page <= last; ++page) {
        const int32_t id = slice.pages[static_cast<size_t>(page)];
        EXPECT_TRUE(id >= 0 && id < options_.pages);
        if (page >= slice.past / kPageTokens) {
          EXPECT_TRUE(written.insert(id).second) << "two sequences write to page " << id;
        } else {
          read.insert(id);
        }
      }
    }
    for (const int32_t page : written) {
      EXPECT_EQ(read.count(page), 0u) << "page " << page << " is shared while it is written";
    }
  }

  FakeRunnerOptions options_;
  RunnerLimits limits_;
  Random random_;
  std::vector<std::array<int32_t, kPageTokens>> held_;  // the tokens in each page
  std::deque<Started> running_;
  std::vector<int32_t> chosen_;  // of the batch that ran last
  DrawScratch scratch_;
  Started last_;  // what was waited for last
};

}  // namespace atom::testing
