// Who owns which page of a KV cache, and the sequences that own them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/batch.h"

namespace atom {

// A free list of page indices. One thread uses it at a time.
class PagePool {
 public:
  explicit PagePool(int64_t pages);

  int64_t pages() const { return static_cast<int64_t>(taken_.size()); }
  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }

  // Appends `count` pages to `to`, or changes nothing and returns false if there are not as many.
  bool take(int64_t count, std::vector<int32_t>& to);
  // REQUIRES: each page is taken.
  void give_back(std::span<const int32_t> pages);

 private:
  std::vector<int32_t> free_;  // the page given back last is taken first
  std::vector<bool> taken_;
};

// The tokens of one conversation and the pages of their keys and values. Gives its pages back at
// the end; the pool must outlive it.
class Sequence {
 public:
  explicit Sequence(PagePool& pool) : pool_(&pool) {}
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;
  ~Sequence();

  // All tokens, of which the first past() have been run: their keys and values are in the cache.
  const std::vector<int32_t>& tokens() const { return tokens_; }
  int64_t past() const { return past_; }
  std::span<const int32_t> pending() const {
    return std::span(tokens_).subspan(static_cast<size_t>(past_));
  }
  std::span<const int32_t> pages() const { return pages_; }

  void append(std::span<const int32_t> tokens);
  // Appends the next `count` pending tokens to the batch. False, with nothing changed, if the pool
  // has too few pages. The batch must be run and then marked by advance() before the next one.
  bool schedule(int64_t count, int64_t prefix_tokens, Batch& batch);
  void advance(int64_t count) { past_ += count; }
  // Forgets all tokens from `length` on, and gives back the pages they alone needed.
  void truncate(int64_t length);

 private:
  PagePool* pool_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> pages_;
  int64_t past_ = 0;
};

}  // namespace atom
