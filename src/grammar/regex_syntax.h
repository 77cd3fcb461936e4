// Regular expressions as users of constrained output write them, parsed into a tree.
//
// The subset that Python's re, ECMAScript and PCRE2 agree on: literals, '.', classes [a-z] and
// [^a-z], escapes, groups (plain, non-capturing, named), alternation, repeats * + ? {m} {m,} {m,n}
// (lazy ones too: they match the same texts), anchors ^ and $. Where dialects differ, the narrower
// meaning holds, so that an output matches whichever checks it: \d \w \s are ASCII, '.' is no line
// break (\n, \r, U+2028, U+2029), '$' stands only at the very end. \S leaves out Unicode's spaces.
// Everything else (look-around, back references, \b, \p{..}, flags, possessive repeats) is an
// error.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "grammar/char_set.h"

namespace atom::grammar {

struct RegexNode {
  enum class Kind : uint8_t {
    kChars,      // one character of a set
    kConcat,     // children one after another; without children: the empty text
    kAlternate,  // one of the children
    kRepeat,     // children[0], least to most times
    kBegin,      // ^
    kEnd,        // $
  };
  static constexpr int64_t kUnbounded = -1;

  Kind kind = Kind::kConcat;
  CharSet chars;
  std::vector<RegexNode> children;
  int64_t least = 0;
  int64_t most = kUnbounded;
};

// place names the field that the pattern comes from, for messages, which also say where in the
// pattern the trouble is. Fails on more than 16 KiB and on groups nested more than 100 deep.
Result<RegexNode> parse_regex(std::string_view pattern, std::string_view place);

// The tree without anchors that matches whole texts. search: the pattern may stand anywhere in the
// text where no anchor holds it (JSON Schema's `pattern`); otherwise it is the whole text, and
// anchors at its ends say nothing new. Fails where an anchor stands inside the pattern.
Result<RegexNode> anchored(RegexNode root, bool search, std::string_view place);

// Trees made by hand.
RegexNode regex_chars(CharSet chars);
RegexNode regex_concat(std::vector<RegexNode> children);
RegexNode regex_repeat(RegexNode child, int64_t least, int64_t most);

}  // namespace atom::grammar
