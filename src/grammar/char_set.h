// Sets of Unicode characters, as regular expressions name them.
#pragma once

#include <span>
#include <vector>

namespace atom::grammar {

struct CharRange {
  char32_t first = 0;
  char32_t last = 0;
};

// Only scalar values are members: surrogates drop out, so that UTF-8 can spell every member.
class CharSet {
 public:
  CharSet() = default;
  // Ranges in any order, which may overlap.
  explicit CharSet(std::vector<CharRange> ranges);

  static CharSet all();

  std::span<const CharRange> ranges() const { return ranges_; }  // ascending, with gaps between
  bool empty() const { return ranges_.empty(); }
  CharSet complement() const;
  CharSet intersection(const CharSet& other) const;

 private:
  std::vector<CharRange> ranges_;
};

}  // namespace atom::grammar
