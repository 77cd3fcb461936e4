// A model of integers for the tests of the engine: the logits after a token are a hash of all
// tokens that the sequence's pages hold up to it, so that a page with wrong content shows at once.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <set>
#include <vector>

#include "base/random.h"
#include "engine/runner.h"

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

  Status start(const Batch& batch) override {
    EXPECT_FALSE(waiting_);
    check(batch);
    if (fails()) return error(ErrorCode::kInternal, "the fake device failed to start");
    // Copies all that the batch points to, and does nothing yet: work comes as late as it may.
    tokens_ = batch.tokens;
    rows_ = batch.logit_rows;
    slices_ = batch.sequences;
    pages_.clear();
    for (const SequenceSlice& slice : batch.sequences) {
      pages_.emplace_back(slice.pages.begin(), slice.pages.end());
    }
    waiting_ = true;
    return {};
  }

  Result<std::span<float>> wait() override {
    EXPECT_TRUE(waiting_);
    waiting_ = false;
    const bool fail =
        fails() || std::find(tokens_.begin(), tokens_.end(), kFakePoison) != tokens_.end();
    logits_.clear();
    size_t row = 0;
    for (size_t s = 0; s < slices_.size(); ++s) {
      const SequenceSlice& slice = slices_[s];
      for (int64_t t = 0; t < slice.token_count; ++t) {
        at(pages_[s], slice.past + t) =
            fail ? -2 : tokens_[static_cast<size_t>(slice.first_token + t)];
      }
      for (; row < rows_.size() && rows_[row] < slice.first_token + slice.token_count; ++row) {
        std::vector<int32_t> seen;
        for (int64_t t = 0; t <= slice.past + rows_[row] - slice.first_token; ++t) {
          seen.push_back(at(pages_[s], t));
        }
        logits_.resize(logits_.size() + kFakeVocab);
        fake_logits(seen, std::span(logits_).last(kFakeVocab));
      }
    }
    if (fail) return error(ErrorCode::kInternal, "the fake device failed");
    return std::span(logits_);
  }

 private:
  int32_t& at(const std::vector<int32_t>& pages, int64_t token) {
    return held_[static_cast<size_t>(pages[static_cast<size_t>(token / kPageTokens)])]
                [static_cast<size_t>(token % kPageTokens)];
  }
  bool fails() { return options_.failures > 0 && random_.below(2 * options_.failures) == 0; }

  void check(const Batch& batch) const {
    EXPECT_GT(batch.size(), 0);
    EXPECT_LE(batch.size(), options_.max_tokens);
    EXPECT_LE(static_cast<int64_t>(batch.logit_rows.size()), options_.max_logit_rows);
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
  // The batch that runs.
  bool waiting_ = false;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> rows_;
  std::vector<SequenceSlice> slices_;
  std::vector<std::vector<int32_t>> pages_;
  std::vector<float> logits_;
};

}  // namespace atom::testing
