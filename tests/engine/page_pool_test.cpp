#include "engine/page_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>

#include "base/random.h"

namespace atom {
namespace {

TEST(PagePool, TakesAllOrNothing) {
  PagePool pool(3);
  std::vector<int32_t> pages = {7};
  EXPECT_FALSE(pool.take(4, pages));
  EXPECT_EQ(pages, std::vector<int32_t>{7});
  EXPECT_EQ(pool.free_pages(), 3);
  EXPECT_TRUE(pool.take(3, pages));
  EXPECT_EQ(pages, (std::vector<int32_t>{7, 0, 1, 2}));
  EXPECT_FALSE(pool.take(1, pages));
}

TEST(PagePoolDeathTest, RefusesAPageTwice) {
  PagePool pool(2);
  std::vector<int32_t> pages;
  ASSERT_TRUE(pool.take(1, pages));
  pool.give_back(pages);
  EXPECT_DEATH(pool.give_back(pages), "not taken");
}

// Whatever sequences do, no page has two owners, none is lost, and each sequence has exactly the
// pages that its tokens in the cache need.
TEST(PagePool, NeverSharesOrLosesPages) {
  constexpr int64_t kPages = 6;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Random random(seed);
    PagePool pool(kPages);
    std::vector<std::unique_ptr<Sequence>> sequences;
    int refused = 0;
    for (int step = 0; step < 1000; ++step) {
      const int64_t action = random.below(10);
      if (sequences.empty() || action == 0) {
        sequences.push_back(std::make_unique<Sequence>(pool));
      }
      const int64_t chosen = random.below(static_cast<int64_t>(sequences.size()));
      Sequence& sequence = *sequences[static_cast<size_t>(chosen)];
      const auto length = static_cast<int64_t>(sequence.tokens().size());
      if (action == 1) {
        sequences.erase(sequences.begin() + chosen);
      } else if (action == 2) {
        sequence.truncate(random.below(length + 1));
      } else {
        sequence.append(std::vector<int32_t>(static_cast<size_t>(1 + random.below(20)), 1));
        const auto waiting = static_cast<int64_t>(sequence.pending().size());
        const int64_t count = 1 + random.below(waiting);
        const int64_t past = sequence.past();
        Batch batch;
        if (sequence.schedule(count, 2, batch)) {
          ASSERT_EQ(batch.size(), count);
          EXPECT_EQ(batch.positions.front(), past + 2);
          EXPECT_EQ(batch.positions.back(), past + 2 + count - 1);
          EXPECT_EQ(batch.sequences[0].past, past);
          sequence.advance(count);
        } else {
          ++refused;
          EXPECT_EQ(batch.size(), 0);
          EXPECT_EQ(sequence.past(), past);
        }
      }
      std::set<int32_t> owned;
      int64_t total = 0;
      for (const auto& s : sequences) {
        const auto pages = static_cast<int64_t>(s->pages().size());
        ASSERT_EQ(pages, (s->past() + kPageTokens - 1) / kPageTokens);
        owned.insert(s->pages().begin(), s->pages().end());
        total += pages;
      }
      ASSERT_EQ(static_cast<int64_t>(owned.size()), total);
      ASSERT_EQ(total + pool.free_pages(), kPages);
      ASSERT_TRUE(owned.empty() || (*owned.begin() >= 0 && *owned.rbegin() < kPages));
    }
    EXPECT_GT(refused, 0);  // the pool did run dry
    sequences.clear();
    EXPECT_EQ(pool.free_pages(), kPages);
  }
}

}  // namespace
}  // namespace atom
