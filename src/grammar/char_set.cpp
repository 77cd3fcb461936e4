#include "grammar/char_set.h"

#include <algorithm>

namespace atom::grammar {
namespace {

constexpr CharRange kBelowSurrogates = {0, 0xd7ff};
constexpr CharRange kAboveSurrogates = {0xe000, 0x10ffff};

}  // namespace

CharSet::CharSet(std::vector<CharRange> ranges) {
  std::vector<CharRange> parts;
  for (const CharRange& range : ranges) {
    for (const CharRange& scalars : {kBelowSurrogates, kAboveSurrogates}) {
      const CharRange part = {std::max(range.first, scalars.first),
                              std::min(range.last, scalars.last)};
      if (part.first <= part.last) parts.push_back(part);
    }
  }
  std::sort(parts.begin(), parts.end(),
            [](const CharRange& a, const CharRange& b) { return a.first < b.first; });
  for (const CharRange& part : parts) {
    if (!ranges_.empty() && part.first <= ranges_.back().last + 1) {
      ranges_.back().last = std::max(ranges_.back().last, part.last);
    } else {
      ranges_.push_back(part);
    }
  }
}

CharSet CharSet::all() { return CharSet({{0, 0x10ffff}}); }

CharSet CharSet::complement() const {
  std::vector<CharRange> gaps;
  char32_t next = 0;
  for (const CharRange& range : ranges_) {
    if (range.first > next) gaps.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= 0x10ffff) gaps.push_back({next, 0x10ffff});
  return CharSet(std::move(gaps));
}

CharSet CharSet::intersection(const CharSet& other) const {
  std::vector<CharRange> both;
  auto a = ranges_.begin();
  auto b = other.ranges_.begin();
  while (a != ranges_.end() && b != other.ranges_.end()) {
    const CharRange part = {std::max(a->first, b->first), std::min(a->last, b->last)};
    if (part.first <= part.last) both.push_back(part);
    (a->last < b->last ? a : b)++;
  }
  return CharSet(std::move(both));
}

}  // namespace atom::grammar
