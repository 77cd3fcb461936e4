// Strings as Python sees them: sequences of code points, kept in UTF-8. A byte that is not part of
// a valid sequence counts as one code point of its own, so that every function is total.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace atom::jinja {

struct CodePoint {
  uint32_t value;  // kInvalidByte for a stray byte
  uint8_t size;    // bytes it takes
};
inline constexpr uint32_t kInvalidByte = 0xffffffff;

// The code point that starts at byte pos. REQUIRES: pos < text.size().
CodePoint decode_at(std::string_view text, size_t pos);
// The code point that ends before byte end. REQUIRES: 0 < end <= text.size().
CodePoint decode_before(std::string_view text, size_t end);

int64_t count_code_points(std::string_view text);
// Byte offsets of all code points, and text.size() at the end.
std::vector<size_t> code_point_offsets(std::string_view text);
bool is_ascii(std::string_view text);

// str.isspace, isalpha ... of one code point.
bool is_space(uint32_t code_point);
bool is_alpha(uint32_t code_point);
bool is_decimal(uint32_t code_point);
bool is_numeric(uint32_t code_point);
bool is_upper(uint32_t code_point);
bool is_lower(uint32_t code_point);
bool is_cased(uint32_t code_point);
bool is_printable(uint32_t code_point);
bool is_identifier_start(uint32_t code_point);
bool is_identifier_part(uint32_t code_point);

// Case mapping by code point, except that U+00DF becomes "SS" (or "Ss").
std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
// First code point in upper case, the others in lower case.
std::string to_capitalized(std::string_view text);
// str.title: a cased letter after an uncased character starts a word.
std::string to_title(std::string_view text);

// Without the white space (or, where chars is not null, the code points of *chars) at its ends.
std::string_view strip(std::string_view text, const std::string_view* chars, bool left, bool right);
// Lines without their ends, as str.splitlines; with keep_ends, with them.
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

}  // namespace atom::jinja
