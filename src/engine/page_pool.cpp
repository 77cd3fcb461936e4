#include "engine/page_pool.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/random.h"

namespace atom {

bool PagePool::Key::operator==(const Key& other) const {
  return before.id == other.before.id && before.salt == other.before.salt && tokens == other.tokens;
}

size_t PagePool::KeyHash::operator()(const Key& key) const {
  uint64_t hash = key.before.salt;
  const auto mix = [&](uint64_t value) { hash = Random(hash ^ value).next(); };
  mix(key.before.id);
  for (size_t i = 0; i < key.tokens.size(); i += 2) {
    mix(static_cast<uint64_t>(static_cast<uint32_t>(key.tokens[i])) << 32 |
        static_cast<uint32_t>(key.tokens[i + 1]));
  }
  return hash;
}

PagePool::PagePool(int64_t pages, int64_t cache_pages)
    : entries_(static_cast<size_t>(pages) + 1),
      free_(static_cast<size_t>(pages)),
      untouched_(pages),
      cache_pages_(cache_pages) {
  std::iota(free_.rbegin(), free_.rend(), 0);
  entries_.back().newer = entries_.back().older = static_cast<int32_t>(pages);
}

bool PagePool::take(int64_t count, std::vector<int32_t>& to) {
  if (count > available()) return false;
  for (int64_t i = 0; i < count; ++i) {
    int32_t page = -1;
    const bool untouched = free_pages() == untouched_;  // all that are free
    const bool grows = untouched && pages() - untouched_ >= cache_pages_;
    if (free_.empty() || (grows && cached_ > 0)) {
      page = overwrite_oldest();
    } else {
      page = free_.back();
      free_.pop_back();
      if (untouched) --untouched_;
    }
    entry(page).references = 1;
    to.push_back(page);
  }
  return true;
}

void PagePool::share(int32_t page) {
  ATOM_CHECK(page >= 0 && page < pages(), "no such page");
  if (entry(page).references == 0) remove_from_cached(page);
  ++entry(page).references;
}

void PagePool::release(std::span<const int32_t> pages) {
  for (size_t i = pages.size(); i-- > 0;) {
    const int32_t page = pages[i];
    check_used(page);
    Entry& own = entry(page);
    if (--own.references > 0) continue;
    if (own.link == 0) {
      free_.push_back(page);
      continue;
    }
    const auto head = static_cast<int32_t>(this->pages());
    own.newer = head;
    own.older = entry(head).older;
    entry(own.older).newer = page;
    entry(head).older = page;
    ++cached_;
  }
}

int32_t PagePool::find(PageLink& link, std::span<const int32_t, kPageTokens> tokens) const {
  Key key = {.before = link, .tokens = {}};
  std::copy(tokens.begin(), tokens.end(), key.tokens.begin());
  const auto found = index_.find(key);
  if (found == index_.end()) return -1;
  link.id = entry(found->second).link;
  return found->second;
}

void PagePool::publish(PageLink& link, std::span<const int32_t, kPageTokens> tokens, int32_t page) {
  check_used(page);
  ATOM_CHECK(entry(page).link == 0, "a page is published once");
  Key key = {.before = link, .tokens = {}};
  std::copy(tokens.begin(), tokens.end(), key.tokens.begin());
  const auto [place, is_new] = index_.try_emplace(key, page);
  if (is_new) {
    entry(page).link = ++last_link_;
    entry(page).key = &place->first;
  }
  link.id = entry(place->second).link;
}

void PagePool::check_used(int32_t page) const {
  ATOM_CHECK(page >= 0 && page < pages() && entry(page).references > 0, "the page is not used");
}

// The ring runs from the head by `newer` through the cached pages, oldest first.
void PagePool::remove_from_cached(int32_t page) {
  Entry& own = entry(page);
  ATOM_CHECK(own.link != 0 && own.newer >= 0, "the page is not cached");
  entry(own.newer).older = own.older;
  entry(own.older).newer = own.newer;
  own.newer = own.older = -1;
  --cached_;
}

int32_t PagePool::overwrite_oldest() {
  const int32_t page = entry(static_cast<int32_t>(pages())).newer;
  remove_from_cached(page);
  index_.erase(index_.find(*entry(page).key));
  entry(page).link = 0;
  entry(page).key = nullptr;
  ++evictions_;
  return page;
}

}  // namespace atom
