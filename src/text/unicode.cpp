#include "text/unicode.h"

#include <fmt/core.h>
#include <utf8proc.h>

#include <cstring>

#include "base/check.h"

namespace atom {

Utf8Step utf8_step_multibyte(const char* p, const char* end) {
  using Kind = Utf8Step::Kind;
  const auto byte = [&](int i) { return static_cast<unsigned char>(p[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0xc2 || lead > 0xf4) return {0xfffd, 1, Kind::kInvalid};
  const uint32_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  char32_t code = lead & (0x7f >> length);
  for (uint32_t i = 1; i < length; ++i) {
    if (p + i == end) return {0xfffd, i, Kind::kIncomplete};
    unsigned char low = 0x80;
    unsigned char high = 0xbf;
    if (i == 1) {  // what keeps out overlong forms, surrogates and codes above U+10FFFF
      if (lead == 0xe0) low = 0xa0;
      if (lead == 0xed) high = 0x9f;
      if (lead == 0xf0) low = 0x90;
      if (lead == 0xf4) high = 0x8f;
    }
    if (byte(static_cast<int>(i)) < low || byte(static_cast<int>(i)) > high) {
      return {0xfffd, i, Kind::kInvalid};
    }
    code = (code << 6) | (byte(static_cast<int>(i)) & 0x3f);
  }
  return {code, length, Kind::kCharacter};
}

bool is_valid_utf8(std::string_view text) {
  const char* p = text.data();
  const char* end = p + text.size();
  while (p < end) {
    if (end - p >= 8) {  // eight ASCII bytes at a time
      uint64_t word = 0;
      std::memcpy(&word, p, 8);
      if ((word & 0x8080808080808080u) == 0) {
        p += 8;
        continue;
      }
    }
    const Utf8Step step = utf8_step(p, end);
    if (step.kind != Utf8Step::Kind::kCharacter) return false;
    p += step.length;
  }
  return true;
}

void append_utf8(std::string& out, char32_t code) {
  const auto push = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    push(code);
  } else if (code < 0x800) {
    push(0xc0 | (code >> 6));
    push(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    push(0xe0 | (code >> 12));
    push(0x80 | ((code >> 6) & 0x3f));
    push(0x80 | (code & 0x3f));
  } else {
    push(0xf0 | (code >> 18));
    push(0x80 | ((code >> 12) & 0x3f));
    push(0x80 | ((code >> 6) & 0x3f));
    push(0x80 | (code & 0x3f));
  }
}

void append_lossy(std::string& out, std::string_view bytes, InvalidUtf8 policy) {
  const char* p = bytes.data();
  const char* end = p + bytes.size();
  while (p < end) {
    const Utf8Step step = utf8_step(p, end);
    if (step.kind == Utf8Step::Kind::kCharacter) {
      out.append(p, step.length);
    } else {
      const uint32_t count = policy == InvalidUtf8::kPerByte ? step.length : 1;
      for (uint32_t i = 0; i < count; ++i) out += "\xef\xbf\xbd";
    }
    p += step.length;
  }
}

size_t incomplete_suffix(std::string_view bytes) {
  const char* end = bytes.data() + bytes.size();
  for (size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
    const auto byte = static_cast<unsigned char>(end[-static_cast<ptrdiff_t>(back)]);
    if (byte < 0x80) return 0;
    if (byte < 0xc0) continue;
    const Utf8Step step = utf8_step(end - back, end);
    return step.kind == Utf8Step::Kind::kIncomplete ? back : 0;
  }
  return 0;
}

std::string one_line(std::string_view text) {
  constexpr size_t kHead = 240;
  constexpr size_t kTail = 120;
  if (text.size() > kHead + kTail + 3) {
    return one_line(text.substr(0, kHead)) + "..." + one_line(text.substr(text.size() - kTail));
  }
  std::string valid;
  append_lossy(valid, text, InvalidUtf8::kPerSequence);
  std::string out;
  for (const char c : valid) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

namespace {

uint8_t classify(char32_t code) {
  uint8_t bits = 0;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      bits = kLetter | kWord;
      break;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      bits = kWord;
      break;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
      bits = kNumber | kWord;
      break;
    case UTF8PROC_CATEGORY_NO:
      bits = kNumber;
      break;
    case UTF8PROC_CATEGORY_PC:
      bits = kPunctuation | kWord;
      break;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      bits = kPunctuation;
      break;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      bits = kSpace;
      break;
    default:
      break;
  }
  if ((code >= 0x09 && code <= 0x0d) || code == 0x85) bits |= kSpace;
  const bool joiner = code == 0x200c || code == 0x200d;
  const bool alphabetic_symbol =
      (code >= 0x24b6 && code <= 0x24e9) || (code >= 0x1f130 && code <= 0x1f149) ||
      (code >= 0x1f150 && code <= 0x1f169) || (code >= 0x1f170 && code <= 0x1f189);
  if (joiner || alphabetic_symbol) bits |= kWord;
  if (code == '\r' || code == '\n') bits |= kLineBreak;
  if (code < 0x80 && code != 0 && std::strchr("$+<=>^`|~", static_cast<int>(code)) != nullptr) {
    bits |= kPunctuation;
  }
  return bits;
}

}  // namespace

CharClasses::CharClasses() {
  size_t used = 1;  // block 0 is all zero: unassigned and private planes
  for (size_t block = 0; block < 0x1100; ++block) {
    if (block >= 0x400 && block < 0xe00) continue;  // planes 4..13 hold no character
    uint8_t classes[256];
    for (size_t i = 0; i < 256; ++i) classes[i] = classify(static_cast<char32_t>(block * 256 + i));
    size_t same = 0;
    while (same < used && std::memcmp(blocks_[same], classes, 256) != 0) ++same;
    if (same == used) {
      ATOM_CHECK(used < kMaxBlocks, "more distinct blocks of Unicode classes than foreseen");
      std::memcpy(blocks_[used++], classes, 256);
    }
    block_of_[block] = static_cast<uint8_t>(same);
  }
}

const CharClasses& CharClasses::get() {
  static const CharClasses classes;
  return classes;
}

namespace {

struct ByteChars {
  char32_t chars[256];
  int16_t bytes[0x180];

  ByteChars() {
    for (int16_t& byte : bytes) byte = -1;
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      chars[b] = printable ? static_cast<char32_t>(b) : next++;
      bytes[chars[b]] = static_cast<int16_t>(b);
    }
  }
};

const ByteChars& byte_chars() {
  static const ByteChars table;
  return table;
}

}  // namespace

char32_t byte_to_char(uint8_t byte) { return byte_chars().chars[byte]; }

int char_to_byte(char32_t code) { return code < 0x180 ? byte_chars().bytes[code] : -1; }

std::string bytes_to_chars(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) append_utf8(out, byte_to_char(static_cast<uint8_t>(c)));
  return out;
}

bool chars_to_bytes(std::string_view chars, std::string& out) {
  out.clear();
  const char* p = chars.data();
  const char* end = p + chars.size();
  while (p < end) {
    const Utf8Step step = utf8_step(p, end);
    const int byte = step.kind == Utf8Step::Kind::kCharacter ? char_to_byte(step.code) : -1;
    if (byte < 0) return false;
    out.push_back(static_cast<char>(byte));
    p += step.length;
  }
  return true;
}

}  // namespace atom
