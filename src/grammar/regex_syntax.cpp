#include "grammar/regex_syntax.h"

#include <utility>

#include "text/unicode.h"

namespace atom::grammar {
namespace {

constexpr size_t kMaxPatternBytes = 16 * 1024;
constexpr int kMaxDepth = 100;
constexpr int64_t kMaxCount = 1'000'000;  // in {m,n}; what it expands to has its own limit
constexpr char32_t kNone = 0xffffffff;    // past the end of the pattern

using Kind = RegexNode::Kind;

std::vector<CharRange> digits() { return {{'0', '9'}}; }
std::vector<CharRange> word_characters() {
  return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
}
std::vector<CharRange> ascii_spaces() { return {{'\t', '\r'}, {' ', ' '}}; }
std::vector<CharRange> all_spaces() {
  return {{'\t', '\r'},     {' ', ' '},       {0x85, 0x85},     {0xa0, 0xa0},
          {0x1680, 0x1680}, {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f},
          {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
}
CharSet no_line_break() {
  return CharSet({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}).complement();
}

int hex_digit(char32_t c) {
  if (c >= '0' && c <= '9') return static_cast<int>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<int>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<int>(c - 'A' + 10);
  return -1;
}

bool is_alphanumeric(char32_t c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

class Parser {
 public:
  Parser(std::string_view pattern, std::string_view place) : place_(place) {
    const char* p = pattern.data();
    const char* end = p + pattern.size();
    while (p < end) {
      const Utf8Step step = utf8_step(p, end);
      text_.push_back(step.code);
      p += step.length;
    }
  }

  Result<RegexNode> parse() {
    RegexNode root = ATOM_TRY(parse_alternatives(0));
    if (peek() == ')') return fail("')' without '('");
    return root;
  }

 private:
  char32_t peek(size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : kNone;
  }
  bool take(char32_t c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  Status fail(std::string_view what) const {
    return error(ErrorCode::kInvalidArgument, "{}: at character {} of the pattern: {}", place_, at_,
                 what);
  }
  Status unsupported(std::string_view what) const {
    return error(ErrorCode::kUnsupported, "{}: at character {} of the pattern: {} not supported",
                 place_, at_, what);
  }

  Result<RegexNode> parse_alternatives(int depth) {
    if (depth > kMaxDepth) return fail("groups nested more than 100 deep");
    std::vector<RegexNode> alternatives;
    do {
      alternatives.push_back(ATOM_TRY(parse_sequence(depth)));
    } while (take('|'));
    if (alternatives.size() == 1) return std::move(alternatives[0]);
    RegexNode node;
    node.kind = Kind::kAlternate;
    node.children = std::move(alternatives);
    return node;
  }

  Result<RegexNode> parse_sequence(int depth) {
    std::vector<RegexNode> parts;
    while (peek() != kNone && peek() != '|' && peek() != ')') {
      RegexNode atom = ATOM_TRY(parse_atom(depth));
      parts.push_back(ATOM_TRY(parse_repeat(std::move(atom))));
    }
    if (parts.size() == 1) return std::move(parts[0]);
    return regex_concat(std::move(parts));
  }

  Result<RegexNode> parse_atom(int depth) {
    const char32_t c = peek();
    switch (c) {
      case '(':
        return parse_group(depth);
      case '[':
        return parse_class();
      case '*':
      case '+':
      case '?':
        return fail("there is nothing to repeat");
      case '.':
        ++at_;
        return regex_chars(no_line_break());
      case '^':
      case '$': {
        ++at_;
        RegexNode node;
        node.kind = c == '^' ? Kind::kBegin : Kind::kEnd;
        return node;
      }
      case '\\': {
        std::vector<CharRange> set;
        const char32_t single = ATOM_TRY(parse_escape(/*in_class=*/false, set));
        if (single != kNone) set = {{single, single}};
        return regex_chars(CharSet(std::move(set)));
      }
      default:
        if (c == '{' && is_repeat()) return fail("there is nothing to repeat");
        ++at_;
        return regex_chars(CharSet({{c, c}}));
    }
  }

  Result<RegexNode> parse_group(int depth) {
    ++at_;
    if (peek() == '*') return unsupported("'(*' verbs are");
    if (take('?')) {
      const bool python_name = peek() == 'P' && peek(1) == '<';
      const bool name = python_name || (peek() == '<' && peek(1) != '=' && peek(1) != '!');
      if (name) {
        at_ += python_name ? 2 : 1;
        while (is_alphanumeric(peek()) || peek() == '_') ++at_;
        if (!take('>')) return fail("a group's name ends in '>'");
      } else if (!take(':')) {
        return unsupported("look-around, flags and other '(?' groups are");
      }
    }
    RegexNode inside = ATOM_TRY(parse_alternatives(depth + 1));
    if (!take(')')) return fail("'(' without ')'");
    return inside;
  }

  // Whether a repeat in braces stands here; any other brace is a literal one.
  bool is_repeat() const {
    size_t i = 1;
    size_t count = 0;
    while (peek(i) >= '0' && peek(i) <= '9') ++i, ++count;
    if (peek(i) == ',') {
      ++i;
      while (peek(i) >= '0' && peek(i) <= '9') ++i, ++count;
    }
    return count > 0 && peek(i) == '}';
  }

  Result<int64_t> parse_count() {
    int64_t count = 0;
    while (peek() >= '0' && peek() <= '9') {
      count = count * 10 + static_cast<int64_t>(peek() - '0');
      if (count > kMaxCount) return fail("a count above 1000000");
      ++at_;
    }
    return count;
  }

  Result<RegexNode> parse_repeat(RegexNode atom) {
    int64_t least = 0;
    int64_t most = RegexNode::kUnbounded;
    const char32_t c = peek();
    if (c == '*' || c == '+' || c == '?') {
      ++at_;
      least = c == '+' ? 1 : 0;
      if (c == '?') most = 1;
    } else if (c == '{' && is_repeat()) {
      ++at_;
      if (peek() == ',') return fail("dialects read '{,n}' differently; write '{0,n}'");
      least = ATOM_TRY(parse_count());
      most = least;
      if (take(',')) most = peek() == '}' ? RegexNode::kUnbounded : ATOM_TRY(parse_count());
      ++at_;
      if (most != RegexNode::kUnbounded && most < least) {
        return fail(fmt::format("{{{},{}}} asks for more than it allows", least, most));
      }
    } else {
      return atom;
    }
    if (atom.kind == Kind::kBegin || atom.kind == Kind::kEnd) {
      return unsupported("a repeated anchor is");
    }
    if (take('?')) {
      // Lazy: another order of trying, the same texts.
    } else if (peek() == '+') {
      return unsupported("possessive repeats are");
    }
    if (peek() == '*' || peek() == '+' || peek() == '?' || (peek() == '{' && is_repeat())) {
      return fail("a repeat of a repeat; put the first one into a group");
    }
    return regex_repeat(std::move(atom), least, most);
  }

  // Behind the backslash; yields the one character that is meant, or kNone and the set.
  Result<char32_t> parse_escape(bool in_class, std::vector<CharRange>& set) {
    ++at_;
    const char32_t c = peek();
    if (c == kNone) return fail("'\\' at the end");
    ++at_;
    const auto complement = [&](std::vector<CharRange> ranges) {
      const CharSet rest = CharSet(std::move(ranges)).complement();
      set.assign(rest.ranges().begin(), rest.ranges().end());
      return kNone;
    };
    switch (c) {
      case 'd':
        set = digits();
        return kNone;
      case 'w':
        set = word_characters();
        return kNone;
      case 's':
        set = ascii_spaces();
        return kNone;
      case 'D':
        return complement(digits());
      case 'W':
        return complement(word_characters());
      case 'S':
        return complement(all_spaces());
      case 'n':
        return U'\n';
      case 'r':
        return U'\r';
      case 't':
        return U'\t';
      case 'f':
        return U'\f';
      case 'v':
        return U'\v';
      case '0':
        if (peek() >= '0' && peek() <= '9') return unsupported("octal escapes are");
        return U'\0';
      case 'b':
        if (in_class) return U'\b';
        return unsupported("'\\b' is");
      case 'x':
        return parse_code(2);
      case 'u':
        return parse_code(4);
      default:
        break;
    }
    if (c < 0x80 && !is_alphanumeric(c)) return c;
    --at_;
    if (c >= '1' && c <= '9') return unsupported("back references are");
    if (c == 'p' || c == 'P') return unsupported("'\\p{..}' is");
    return unsupported("this escape is");
  }

  // \xHH, \uHHHH (two of them for a surrogate pair), or any number of digits in braces.
  Result<char32_t> parse_code(int length) {
    if (take('{')) {
      char32_t code = 0;
      int count = 0;
      for (; hex_digit(peek()) >= 0 && count < 8; ++count, ++at_) {
        code = code * 16 + static_cast<char32_t>(hex_digit(peek()));
      }
      if (count == 0 || !take('}')) return fail("hexadecimal digits and '}' are expected");
      return checked_code(code);
    }
    char32_t code = ATOM_TRY(parse_hex(length));
    if (length == 4 && code >= 0xd800 && code <= 0xdbff && peek() == '\\' && peek(1) == 'u') {
      at_ += 2;
      const char32_t low = ATOM_TRY(parse_hex(4));
      if (low < 0xdc00 || low > 0xdfff) return fail("half a surrogate pair");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    return checked_code(code);
  }
  Result<char32_t> parse_hex(int length) {
    char32_t code = 0;
    for (int i = 0; i < length; ++i, ++at_) {
      if (hex_digit(peek()) < 0)
        return fail(fmt::format("{} hexadecimal digits are expected", length));
      code = code * 16 + static_cast<char32_t>(hex_digit(peek()));
    }
    return code;
  }
  Result<char32_t> checked_code(char32_t code) const {
    if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return fail("no Unicode character");
    return code;
  }

  Result<RegexNode> parse_class() {
    ++at_;
    const bool negated = take('^');
    if (peek() == ']')
      return unsupported("']' right after '[', which dialects read differently, is");
    std::vector<CharRange> ranges;
    while (!take(']')) {
      if (peek() == kNone) return fail("'[' without ']'");
      if (peek() == '[' && (peek(1) == ':' || peek(1) == '.' || peek(1) == '=')) {
        return unsupported("POSIX classes are");
      }
      std::vector<CharRange> set;
      const char32_t first = ATOM_TRY(parse_class_member(set));
      const bool range = peek() == '-' && peek(1) != ']' && peek(1) != kNone;
      if (!range) {
        if (first != kNone) set = {{first, first}};
      } else {
        ++at_;
        std::vector<CharRange> end_set;
        const char32_t last = ATOM_TRY(parse_class_member(end_set));
        if (first == kNone || last == kNone)
          return fail("a class such as \\d is no end of a range");
        if (last < first) return fail("the range is empty");
        set = {{first, last}};
      }
      ranges.insert(ranges.end(), set.begin(), set.end());
    }
    const CharSet set(std::move(ranges));
    return regex_chars(negated ? set.complement() : set);
  }

  Result<char32_t> parse_class_member(std::vector<CharRange>& set) {
    if (peek() == '\\') return parse_escape(/*in_class=*/true, set);
    return text_[at_++];
  }

  std::string_view place_;
  std::u32string text_;
  size_t at_ = 0;
};

RegexNode any_text() { return regex_repeat(regex_chars(CharSet::all()), 0, RegexNode::kUnbounded); }

bool has_anchor(const RegexNode& node) {
  if (node.kind == Kind::kBegin || node.kind == Kind::kEnd) return true;
  for (const RegexNode& child : node.children) {
    if (has_anchor(child)) return true;
  }
  return false;
}

}  // namespace

RegexNode regex_chars(CharSet chars) {
  RegexNode node;
  node.kind = Kind::kChars;
  node.chars = std::move(chars);
  return node;
}

RegexNode regex_concat(std::vector<RegexNode> children) {
  RegexNode node;
  node.kind = Kind::kConcat;
  node.children = std::move(children);
  return node;
}

RegexNode regex_repeat(RegexNode child, int64_t least, int64_t most) {
  RegexNode node;
  node.kind = Kind::kRepeat;
  node.children.push_back(std::move(child));
  node.least = least;
  node.most = most;
  return node;
}

Result<RegexNode> parse_regex(std::string_view pattern, std::string_view place) {
  if (pattern.size() > kMaxPatternBytes) {
    return error(ErrorCode::kInvalidArgument, "{}: a pattern of {} bytes, more than the {} allowed",
                 place, pattern.size(), kMaxPatternBytes);
  }
  if (!is_valid_utf8(pattern)) {
    return error(ErrorCode::kInvalidArgument, "{}: the pattern is not UTF-8", place);
  }
  return Parser(pattern, place).parse();
}

Result<RegexNode> anchored(RegexNode root, bool search, std::string_view place) {
  if (root.kind == Kind::kAlternate) {
    for (RegexNode& child : root.children) {
      child = ATOM_TRY(anchored(std::move(child), search, place));
    }
    return root;
  }
  std::vector<RegexNode> parts;
  if (root.kind == Kind::kConcat) {
    parts = std::move(root.children);
  } else {
    parts.push_back(std::move(root));
  }
  size_t begin = 0;
  size_t end = parts.size();
  while (begin < end && parts[begin].kind == Kind::kBegin) ++begin;
  while (end > begin && parts[end - 1].kind == Kind::kEnd) --end;
  const bool held_at_begin = begin > 0;
  const bool held_at_end = end < parts.size();
  // A group that is all there is may hold anchored alternatives itself.
  if (end - begin == 1 && !held_at_begin && !held_at_end && parts.size() == 1 &&
      (parts[0].kind == Kind::kAlternate || parts[0].kind == Kind::kConcat)) {
    return anchored(std::move(parts[0]), search, place);
  }
  std::vector<RegexNode> result;
  if (search && !held_at_begin) result.push_back(any_text());
  for (size_t i = begin; i < end; ++i) {
    if (has_anchor(parts[i])) {
      return error(ErrorCode::kUnsupported,
                   "{}: anchors are supported at the ends of the pattern and of its alternatives",
                   place);
    }
    result.push_back(std::move(parts[i]));
  }
  if (search && !held_at_end) result.push_back(any_text());
  return regex_concat(std::move(result));
}

}  // namespace atom::grammar
