#include "text/scanners.h"

#include "text/unicode.h"

namespace atom {
namespace {

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Char {
  uint8_t bits;
  uint32_t length;
};

class Cursor {
 public:
  explicit Cursor(const char* end) : end_(end), classes_(CharClasses::get()) {}

  Char at(const char* p) const {
    const auto byte = static_cast<unsigned char>(*p);
    if (byte < 0x80) return {classes_.ascii(byte), 1};
    const Utf8Step step = utf8_step_multibyte(p, end_);
    return {step.kind == Utf8Step::Kind::kCharacter ? classes_(step.code) : uint8_t{0},
            step.length};
  }
  // Past all characters of which some bit of `wanted` is set.
  const char* skip(const char* p, uint8_t wanted) const {
    while (p < end_) {
      const Char c = at(p);
      if ((c.bits & wanted) == 0) break;
      p += c.length;
    }
    return p;
  }
  const char* skip_symbols(const char* p) const {
    while (p < end_) {
      const Char c = at(p);
      if ((c.bits & (kLetter | kNumber | kSpace)) != 0) break;
      p += c.length;
    }
    return p;
  }
  const char* skip_line_breaks(const char* p) const {
    while (p < end_ && (*p == '\r' || *p == '\n')) ++p;
    return p;
  }
  // \s+(?!\S)|\s+ at a space: the whole run where the text ends with it, else all but its last
  // character, which goes with the word behind it, unless there is only one.
  const char* spaces(const char* p) const {
    const char* last = p;
    const char* q = p;
    while (q < end_) {
      const Char c = at(q);
      if ((c.bits & kSpace) == 0) break;
      last = q;
      q += c.length;
    }
    return q == end_ || last == p ? q : last;
  }

 private:
  const char* end_;
  const CharClasses& classes_;
};

// The end of an English contraction such as 'll at p, or p.
const char* contraction(const char* p, const char* end, bool ignore_case) {
  if (end - p < 2 || *p != '\'') return p;
  const auto lower = [&](char c) {
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  const char first = lower(p[1]);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return p + 2;
  // Case folding makes U+017F, the long s, an s.
  if (ignore_case && end - p >= 3 && p[1] == '\xc5' && p[2] == '\xbf') return p + 3;
  if (end - p < 3) return p;
  const char second = lower(p[2]);
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
      (first == 'l' && second == 'l')) {
    return p + 3;
  }
  return p;
}

}  // namespace

std::string_view scanner_pattern(ScannerKind kind) {
  switch (kind) {
    case ScannerKind::kGpt2:
      return kGpt2Pattern;
    case ScannerKind::kLlama3:
      return kLlama3Pattern;
    case ScannerKind::kQwen2:
      return kQwen2Pattern;
  }
  return {};
}

std::optional<ScannerKind> scanner_for(std::string_view pattern) {
  for (const ScannerKind kind : {ScannerKind::kGpt2, ScannerKind::kLlama3, ScannerKind::kQwen2}) {
    if (pattern == scanner_pattern(kind)) return kind;
  }
  return std::nullopt;
}

const char* scan_gpt2(const char* p, const char* end) {
  const Cursor cursor(end);
  if (*p == '\'') {
    const char* q = contraction(p, end, false);
    if (q != p) return q;
  }
  // " ?" of the three alternatives: at most one blank may stand before the word.
  const char* word = *p == ' ' && p + 1 < end ? p + 1 : p;
  const Char c = cursor.at(word);
  if ((c.bits & kLetter) != 0) return cursor.skip(word + c.length, kLetter);
  if ((c.bits & kNumber) != 0) return cursor.skip(word + c.length, kNumber);
  if ((c.bits & kSpace) == 0) return cursor.skip_symbols(word + c.length);
  return cursor.spaces(p);
}

const char* scan_llama3(const char* p, const char* end, int max_digits) {
  const Cursor cursor(end);
  if (*p == '\'') {
    const char* q = contraction(p, end, true);
    if (q != p) return q;
  }
  const Char first = cursor.at(p);
  if ((first.bits & kLetter) != 0) return cursor.skip(p + first.length, kLetter);
  if ((first.bits & kNumber) != 0) {
    const char* q = p + first.length;
    for (int digits = 1; digits < max_digits && q < end; ++digits) {
      const Char c = cursor.at(q);
      if ((c.bits & kNumber) == 0) break;
      q += c.length;
    }
    return q;
  }
  const char* second = p + first.length;
  if ((first.bits & kLineBreak) == 0 && second < end) {
    const Char c = cursor.at(second);
    if ((c.bits & kLetter) != 0) return cursor.skip(second + c.length, kLetter);
  }
  const bool blank = *p == ' ' && second < end;
  const char* symbols = blank ? second : p;
  if ((cursor.at(symbols).bits & (kSpace | kLetter | kNumber)) == 0) {
    return cursor.skip_line_breaks(cursor.skip_symbols(symbols));
  }
  // A run of spaces: \s*[\r\n]+ takes it through its last line break.
  const char* line_end = nullptr;
  for (const char* q = p; q < end;) {
    const Char c = cursor.at(q);
    if ((c.bits & kSpace) == 0) break;
    q += c.length;
    if ((c.bits & kLineBreak) != 0) line_end = q;
  }
  return line_end != nullptr ? line_end : cursor.spaces(p);
}

}  // namespace atom
