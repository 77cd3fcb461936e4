// Who uses which page of a KV cache, and which pages can be found again by what they hold.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "ops/batch.h"

namespace atom {

// Pages that are needed for this many tokens.
constexpr int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

// A run of full pages, from a sequence's first on, whose tokens are known: equal links mean equal
// tokens from the start, because a page's link is made of the link before it and its own tokens,
// compared in full.
struct PageLink {
  static constexpr uint64_t kPrivate = ~uint64_t{0};

  uint64_t salt = 0;  // runs with different salts never meet
  uint64_t id = 0;    // 0: the empty run; kPrivate: another empty one, whose salts are others
};

// Every page is in one of three states:
//
//   used      by one or more sequences (references)      take, share  ->  release
//   cached    by none, but found by its link; the one used longest ago is overwritten first
//   free      by none, and of no known content
//
// One thread uses a pool at a time.
class PagePool {
 public:
  // cache_pages: once so many different pages have been taken, cached ones are overwritten before
  // another is taken for the first time, so that a cache alone touches no more memory.
  PagePool(int64_t pages, int64_t cache_pages);
  explicit PagePool(int64_t pages) : PagePool(pages, pages) {}

  int64_t pages() const { return static_cast<int64_t>(entries_.size()) - 1; }
  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }
  int64_t cached_pages() const { return cached_; }
  int64_t used_pages() const { return pages() - free_pages() - cached_; }
  int64_t available() const { return free_pages() + cached_; }
  int64_t evictions() const { return evictions_; }  // cached pages that were overwritten

  // Appends `count` pages with one reference each to `to`; free ones first, then cached ones, or
  // the other way round (see above). Or changes nothing and returns false if there are not as many.
  bool take(int64_t count, std::vector<int32_t>& to);
  // Adds a reference. REQUIRES: the page is used or cached.
  void share(int32_t page);
  // Drops a reference of each. Later pages of the span are overwritten sooner, since nobody can use
  // them without the ones before. REQUIRES: the pages are used.
  void release(std::span<const int32_t> pages);
  int64_t references(int32_t page) const { return entry(page).references; }

  // The page that continues a run with these tokens, or -1; link becomes that of the longer run.
  int32_t find(PageLink& link, std::span<const int32_t, kPageTokens> tokens) const;
  // Makes a used page that holds these tokens behind the run findable, unless another page already
  // is; link becomes that of the longer run. REQUIRES: nobody writes to the page any more.
  void publish(PageLink& link, std::span<const int32_t, kPageTokens> tokens, int32_t page);

 private:
  struct Key {
    PageLink before;
    std::array<int32_t, kPageTokens> tokens;
    bool operator==(const Key& other) const;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };
  struct Entry {
    int64_t references = 0;
    uint64_t link = 0;               // its run's id; 0: cannot be found
    const Key* key = nullptr;        // in index_, where it can
    int32_t newer = -1, older = -1;  // neighbours among the cached pages
  };

  Entry& entry(int32_t page) { return entries_[static_cast<size_t>(page)]; }
  const Entry& entry(int32_t page) const { return entries_[static_cast<size_t>(page)]; }
  void check_used(int32_t page) const;
  void remove_from_cached(int32_t page);
  int32_t overwrite_oldest();

  std::vector<Entry> entries_;  // one more than pages: the last heads the ring of cached pages
  std::vector<int32_t> free_;   // the page given back last is taken first
  int64_t untouched_ = 0;       // of free_, its first: never taken
  int64_t cache_pages_ = 0;
  std::unordered_map<Key, int32_t, KeyHash> index_;
  int64_t cached_ = 0;
  int64_t evictions_ = 0;
  uint64_t last_link_ = 0;
};

}  // namespace atom
