#include "engine/page_pool.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "model/batching.h"

namespace atom {
namespace {

int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

}  // namespace

PagePool::PagePool(int64_t pages)
    : free_(static_cast<size_t>(pages)), taken_(static_cast<size_t>(pages)) {
  std::iota(free_.rbegin(), free_.rend(), 0);
}

bool PagePool::take(int64_t count, std::vector<int32_t>& to) {
  if (count > free_pages()) return false;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t page = free_.back();
    free_.pop_back();
    taken_[static_cast<size_t>(page)] = true;
    to.push_back(page);
  }
  return true;
}

void PagePool::give_back(std::span<const int32_t> pages) {
  for (const int32_t page : pages) {
    ATOM_CHECK(page >= 0 && page < this->pages() && taken_[static_cast<size_t>(page)],
               "a page came back that was not taken");
    taken_[static_cast<size_t>(page)] = false;
    free_.push_back(page);
  }
}

Sequence::~Sequence() { pool_->give_back(pages_); }

void Sequence::append(std::span<const int32_t> tokens) {
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

bool Sequence::schedule(int64_t count, int64_t prefix_tokens, Batch& batch) {
  ATOM_CHECK(count > 0 && count <= static_cast<int64_t>(pending().size()), "too few tokens wait");
  const int64_t missing = pages_for(past_ + count) - static_cast<int64_t>(pages_.size());
  if (missing > 0 && !pool_->take(missing, pages_)) return false;
  add_sequence(batch, pending().first(static_cast<size_t>(count)), past_, pages_, prefix_tokens);
  return true;
}

void Sequence::truncate(int64_t length) {
  ATOM_CHECK(length >= 0 && length <= static_cast<int64_t>(tokens_.size()), "cannot grow this way");
  tokens_.resize(static_cast<size_t>(length));
  past_ = std::min(past_, length);
  const auto kept = static_cast<size_t>(pages_for(past_));
  if (kept >= pages_.size()) return;
  pool_->give_back(std::span(pages_).subspan(kept));
  pages_.resize(kept);
}

}  // namespace atom
