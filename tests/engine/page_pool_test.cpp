#include "engine/page_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "base/random.h"

namespace atom {
namespace {

using Tokens = std::vector<int32_t>;

std::span<const int32_t, kPageTokens> page_of(const Tokens& tokens) {
  return std::span<const int32_t, kPageTokens>(tokens);
}

Tokens tokens_from(int32_t first) {
  Tokens tokens(kPageTokens);
  for (int32_t& token : tokens) token = first++;
  return tokens;
}

TEST(PagePool, TakesAllOrNothing) {
  PagePool pool(3);
  std::vector<int32_t> pages = {7};
  EXPECT_FALSE(pool.take(4, pages));
  EXPECT_EQ(pages, std::vector<int32_t>{7});
  EXPECT_EQ(pool.free_pages(), 3);
  EXPECT_TRUE(pool.take(3, pages));
  EXPECT_EQ(pages, (std::vector<int32_t>{7, 0, 1, 2}));
  EXPECT_FALSE(pool.take(1, pages));
  EXPECT_EQ(pool.used_pages(), 3);
}

TEST(PagePool, FindsWhatWasPublishedBehindTheSameTokens) {
  PagePool pool(4);
  std::vector<int32_t> pages;
  ASSERT_TRUE(pool.take(2, pages));
  PageLink link;
  pool.publish(link, page_of(tokens_from(1)), pages[0]);
  pool.publish(link, page_of(tokens_from(50)), pages[1]);

  PageLink at;
  EXPECT_EQ(pool.find(at, page_of(tokens_from(2))), -1);
  EXPECT_EQ(pool.find(at, page_of(tokens_from(50))), -1) << "not a first page";
  EXPECT_EQ(pool.find(at, page_of(tokens_from(1))), pages[0]);
  EXPECT_EQ(pool.find(at, page_of(tokens_from(1))), -1) << "not a second page";
  EXPECT_EQ(pool.find(at, page_of(tokens_from(50))), pages[1]);
  EXPECT_EQ(at.id, link.id);
  PageLink salted = {.salt = 1};
  EXPECT_EQ(pool.find(salted, page_of(tokens_from(1))), -1);
  PageLink isolated = {.id = PageLink::kPrivate};
  EXPECT_EQ(pool.find(isolated, page_of(tokens_from(1))), -1);
}

TEST(PagePool, TheSecondOfEqualPagesStaysPrivate) {
  PagePool pool(4);
  std::vector<int32_t> pages;
  ASSERT_TRUE(pool.take(2, pages));
  PageLink first, second, at;
  pool.publish(first, page_of(tokens_from(1)), pages[0]);
  pool.publish(second, page_of(tokens_from(1)), pages[1]);
  EXPECT_EQ(first.id, second.id) << "what follows either is the same";
  EXPECT_EQ(pool.find(at, page_of(tokens_from(1))), pages[0]);
  pool.release(pages);
  EXPECT_EQ(pool.cached_pages(), 1);
  EXPECT_EQ(pool.free_pages(), 3);
}

// The memory of pages that nobody has taken is for sequences that run, beyond a cache's share.
TEST(PagePool, FillsNoMoreThanItsShareWithWhatOthersLeft) {
  PagePool pool(8, 3);
  const auto use = [&](int64_t count, int32_t tokens) {
    std::vector<int32_t> pages;
    EXPECT_TRUE(pool.take(count, pages));
    PageLink link;
    for (const int32_t page : pages) pool.publish(link, page_of(tokens_from(tokens++)), page);
    return pages;
  };
  for (int32_t i = 0; i < 10; ++i) pool.release(use(2, 100 * i));
  EXPECT_EQ(pool.cached_pages(), 3);
  EXPECT_EQ(pool.free_pages(), 5);
  PageLink at;
  EXPECT_NE(pool.find(at, page_of(tokens_from(900))), -1) << "the last one is still there";
  // Those who run may have all; what they leave is cached where it is.
  const std::vector<int32_t> many = use(7, 2000);
  EXPECT_EQ(pool.cached_pages(), 0);
  EXPECT_EQ(pool.free_pages(), 1);
  pool.release(many);
  EXPECT_EQ(pool.cached_pages(), 7);
  // A page that was given back without content has been touched: it goes first.
  std::vector<int32_t> blank;
  ASSERT_TRUE(pool.take(1, blank));
  pool.release(blank);
  EXPECT_EQ(pool.cached_pages(), 6);
  EXPECT_EQ(pool.free_pages(), 2);
  pool.release(use(1, 3000));
  EXPECT_EQ(pool.cached_pages(), 7);
  EXPECT_EQ(pool.free_pages(), 1);
}

TEST(PagePool, OverwritesWhatWasUsedLongestAgoLastPagesFirst) {
  PagePool pool(4);
  std::vector<int32_t> first, second;
  ASSERT_TRUE(pool.take(2, first));
  ASSERT_TRUE(pool.take(2, second));
  PageLink a, b;
  pool.publish(a, page_of(tokens_from(1)), first[0]);
  pool.publish(a, page_of(tokens_from(20)), first[1]);
  pool.publish(b, page_of(tokens_from(100)), second[0]);
  pool.publish(b, page_of(tokens_from(120)), second[1]);
  pool.release(first);
  pool.release(second);
  EXPECT_EQ(pool.cached_pages(), 4);
  // The first run is used again, and so the second becomes the older one.
  for (const int32_t page : first) pool.share(page);
  pool.release(first);
  std::vector<int32_t> taken;
  ASSERT_TRUE(pool.take(3, taken));
  EXPECT_EQ(taken, (std::vector<int32_t>{second[1], second[0], first[1]}));
  EXPECT_EQ(pool.evictions(), 3);
  PageLink at;
  EXPECT_EQ(pool.find(at, page_of(tokens_from(1))), first[0]);
  EXPECT_EQ(pool.find(at, page_of(tokens_from(20))), -1);
  // A run that was lost in the middle cannot be found by its end, even when the middle comes back.
  pool.release(taken);
  EXPECT_EQ(pool.free_pages(), 3);
}

TEST(PagePoolDeathTest, RefusesMisuse) {
  PagePool pool(2);
  std::vector<int32_t> pages;
  ASSERT_TRUE(pool.take(1, pages));
  pool.release(pages);
  EXPECT_DEATH(pool.release(pages), "not used");
  EXPECT_DEATH(pool.share(pages[0]), "not cached");
  EXPECT_DEATH(pool.share(2), "no such page");
}

// Against a model that knows what every page holds.
TEST(PagePool, CountsReferencesAndFindsOnlyTheTruth) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Random random(seed);
    const int64_t count = 3 + random.below(12);
    PagePool pool(count);
    std::map<int32_t, std::vector<int32_t>> content;  // page -> the run that ends in it
    std::vector<std::vector<int32_t>> runs;           // pages
    for (int step = 0; step < 2000; ++step) {
      if (runs.empty() || random.below(3) > 0) {
        // A run of a few pages out of few possible ones: as much as can be found, then new pages.
        std::vector<int32_t> pages, tokens;
        PageLink link;
        bool found_all = true;
        const int64_t length = 1 + random.below(3);
        for (int64_t i = 0; i < length; ++i) {
          const Tokens own = tokens_from(static_cast<int32_t>(random.below(3)));
          tokens.insert(tokens.end(), own.begin(), own.end());
          const int32_t found = found_all ? pool.find(link, page_of(own)) : -1;
          if (found >= 0) {
            ASSERT_EQ(content[found], tokens) << "page " << found;
            pool.share(found);
            pages.push_back(found);
            continue;
          }
          found_all = false;
          if (!pool.take(1, pages)) break;
          content[pages.back()] = tokens;
          pool.publish(link, page_of(own), pages.back());
        }
        runs.push_back(pages);
      } else {
        const int64_t chosen = random.below(static_cast<int64_t>(runs.size()));
        pool.release(runs[static_cast<size_t>(chosen)]);
        runs.erase(runs.begin() + chosen);
      }
      std::map<int32_t, int64_t> references;
      for (const auto& run : runs) {
        for (const int32_t page : run) ++references[page];
      }
      for (int32_t page = 0; page < count; ++page) {
        ASSERT_EQ(pool.references(page), references[page]);
      }
      const auto used = std::count_if(references.begin(), references.end(),
                                      [](const auto& entry) { return entry.second > 0; });
      ASSERT_EQ(pool.used_pages(), used);
    }
    for (const auto& run : runs) pool.release(run);
    EXPECT_EQ(pool.available(), count);
  }
}

}  // namespace
}  // namespace atom
