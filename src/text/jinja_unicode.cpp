#include "text/jinja_unicode.h"

#include <utf8proc.h>

#include <algorithm>

#include "text/unicode.h"

namespace atom::jinja {
namespace {

utf8proc_category_t category(uint32_t code_point) {
  if (code_point > 0x10ffff) return UTF8PROC_CATEGORY_CN;
  return utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
}

bool has_category(uint32_t code_point, std::initializer_list<utf8proc_category_t> wanted) {
  const utf8proc_category_t found = category(code_point);
  return std::find(wanted.begin(), wanted.end(), found) != wanted.end();
}

enum class Case { kLower, kUpper, kTitle };

void append_cased(std::string& out, std::string_view text, size_t pos, CodePoint c, Case wanted) {
  if (c.value == kInvalidByte) {
    out.push_back(text[pos]);
    return;
  }
  if (c.value == 0xdf && wanted != Case::kLower) {
    out += wanted == Case::kUpper ? "SS" : "Ss";
    return;
  }
  const auto value = static_cast<utf8proc_int32_t>(c.value);
  utf8proc_int32_t mapped = value;
  switch (wanted) {
    case Case::kLower:
      mapped = utf8proc_tolower(value);
      break;
    case Case::kUpper:
      mapped = utf8proc_toupper(value);
      break;
    case Case::kTitle:
      mapped = utf8proc_totitle(value);
      break;
  }
  append_utf8(out, static_cast<char32_t>(mapped));
}

// Bytes of the line end at pos, or 0.
size_t line_end_size(std::string_view text, size_t pos) {
  const CodePoint c = decode_at(text, pos);
  switch (c.value) {
    case '\r':
      return pos + 1 < text.size() && text[pos + 1] == '\n' ? 2 : 1;
    case '\n':
    case '\v':
    case '\f':
    case 0x1c:
    case 0x1d:
    case 0x1e:
    case 0x85:
    case 0x2028:
    case 0x2029:
      return c.size;
    default:
      return 0;
  }
}

bool contains_code_point(std::string_view set, std::string_view text, size_t pos, CodePoint c) {
  return set.find(text.substr(pos, c.size)) != std::string_view::npos;
}

}  // namespace

CodePoint decode_at(std::string_view text, size_t pos) {
  const Utf8Step step = utf8_step(text.data() + pos, text.data() + text.size());
  if (step.kind != Utf8Step::Kind::kCharacter) return {kInvalidByte, 1};
  return {step.code, static_cast<uint8_t>(step.length)};
}

CodePoint decode_before(std::string_view text, size_t end) {
  for (size_t size = 1; size <= 4 && size <= end; ++size) {
    const size_t start = end - size;
    if ((static_cast<uint8_t>(text[start]) & 0xc0) == 0x80) continue;
    const CodePoint c = decode_at(text, start);
    if (c.size == size) return c;
    break;
  }
  return {kInvalidByte, 1};
}

int64_t count_code_points(std::string_view text) {
  int64_t count = 0;
  for (size_t pos = 0; pos < text.size(); pos += decode_at(text, pos).size) ++count;
  return count;
}

std::vector<size_t> code_point_offsets(std::string_view text) {
  std::vector<size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (size_t pos = 0; pos < text.size(); pos += decode_at(text, pos).size) offsets.push_back(pos);
  offsets.push_back(text.size());
  return offsets;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
}

bool is_space(uint32_t c) {
  if (c < 0x80) return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
         c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_alpha(uint32_t c) {
  return has_category(c, {UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LT,
                          UTF8PROC_CATEGORY_LM, UTF8PROC_CATEGORY_LO});
}
bool is_decimal(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }
bool is_numeric(uint32_t c) {
  return has_category(c, {UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NL, UTF8PROC_CATEGORY_NO});
}
bool is_upper(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_LU; }
bool is_lower(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_LL; }
bool is_cased(uint32_t c) {
  return has_category(c, {UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LT});
}
bool is_printable(uint32_t c) {
  return c == ' ' ||
         (c != kInvalidByte &&
          !has_category(c, {UTF8PROC_CATEGORY_CC, UTF8PROC_CATEGORY_CF, UTF8PROC_CATEGORY_CS,
                            UTF8PROC_CATEGORY_CO, UTF8PROC_CATEGORY_CN, UTF8PROC_CATEGORY_ZL,
                            UTF8PROC_CATEGORY_ZP, UTF8PROC_CATEGORY_ZS}));
}
bool is_identifier_start(uint32_t c) {
  return c == '_' || is_alpha(c) || category(c) == UTF8PROC_CATEGORY_NL;
}
bool is_identifier_part(uint32_t c) {
  return is_identifier_start(c) || has_category(c, {UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_MN,
                                                    UTF8PROC_CATEGORY_MC, UTF8PROC_CATEGORY_PC});
}

std::string to_upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = decode_at(text, pos);
    append_cased(out, text, pos, c, Case::kUpper);
    pos += c.size;
  }
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = decode_at(text, pos);
    append_cased(out, text, pos, c, Case::kLower);
    pos += c.size;
  }
  return out;
}

std::string to_capitalized(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = decode_at(text, pos);
    append_cased(out, text, pos, c, pos == 0 ? Case::kTitle : Case::kLower);
    pos += c.size;
  }
  return out;
}

std::string to_title(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool inside_word = false;
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = decode_at(text, pos);
    append_cased(out, text, pos, c, inside_word ? Case::kLower : Case::kTitle);
    inside_word = is_cased(c.value);
    pos += c.size;
  }
  return out;
}

std::string_view strip(std::string_view text, const std::string_view* chars, bool left,
                       bool right) {
  const auto strippable = [&](size_t pos, CodePoint c) {
    return chars == nullptr ? is_space(c.value) : contains_code_point(*chars, text, pos, c);
  };
  size_t begin = 0;
  while (left && begin < text.size()) {
    const CodePoint c = decode_at(text, begin);
    if (!strippable(begin, c)) break;
    begin += c.size;
  }
  size_t end = text.size();
  while (right && end > begin) {
    const CodePoint c = decode_before(text, end);
    if (!strippable(end - c.size, c)) break;
    end -= c.size;
  }
  return text.substr(begin, end - begin);
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t end_size = line_end_size(text, pos);
    if (end_size == 0) {
      pos += decode_at(text, pos).size;
      continue;
    }
    lines.push_back(text.substr(start, pos - start + (keep_ends ? end_size : 0)));
    pos += end_size;
    start = pos;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

}  // namespace atom::jinja
