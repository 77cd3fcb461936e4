// UTF-8 that may be malformed, and the character classes that pre-tokenizers ask for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace atom {

// What stands at one place of a byte string.
struct Utf8Step {
  enum class Kind : uint8_t {
    kCharacter,
    kInvalid,     // bytes that no character starts with: the longest part worth one U+FFFD
    kIncomplete,  // the text ends inside what could still become a character
  };
  char32_t code = 0;  // of a character, else 0xFFFD
  uint32_t length = 0;
  Kind kind = Kind::kCharacter;
};

// Looks at the bytes at p. REQUIRES: p < end.
Utf8Step utf8_step_multibyte(const char* p, const char* end);
inline Utf8Step utf8_step(const char* p, const char* end) {
  const auto byte = static_cast<unsigned char>(*p);
  if (byte < 0x80) return {byte, 1, Utf8Step::Kind::kCharacter};
  return utf8_step_multibyte(p, end);
}

bool is_valid_utf8(std::string_view text);
void append_utf8(std::string& out, char32_t code);

// How bytes that are no UTF-8 show up in text.
enum class InvalidUtf8 : uint8_t {
  kPerSequence,  // one U+FFFD for each maximal invalid sequence, as Unicode recommends
  kPerByte,      // one U+FFFD for each invalid byte
};
// Appends bytes to out with everything invalid (an incomplete end too) replaced by U+FFFD.
void append_lossy(std::string& out, std::string_view bytes, InvalidUtf8 policy);
// The number of bytes at the end that may yet become a character: 0..3.
size_t incomplete_suffix(std::string_view bytes);

// The text on one line, for messages that quote a file: control characters as \n or \x1b, what is
// no UTF-8 as U+FFFD, and the middle of a long text left out.
std::string one_line(std::string_view text);

// Bits of a character's class.
enum CharClass : uint8_t {
  kLetter = 1,       // \p{L}
  kNumber = 2,       // \p{N}
  kSpace = 4,        // the property White_Space
  kPunctuation = 8,  // \p{P}, and the ASCII symbols $+<=>^`|~
  kWord = 16,        // \w: Alphabetic, marks, decimal digits, connectors, joiners (UTS 18)
  kLineBreak = 32,   // \r and \n
};

// Two-stage table over all code points, made from utf8proc's categories when first needed.
class CharClasses {
 public:
  static const CharClasses& get();
  uint8_t operator()(char32_t code) const {
    return code < 0x110000 ? blocks_[block_of_[code >> 8]][code & 0xff] : uint8_t{0};
  }
  uint8_t ascii(unsigned char byte) const { return blocks_[block_of_[0]][byte]; }

 private:
  CharClasses();
  static constexpr size_t kMaxBlocks = 256;
  uint8_t block_of_[0x1100] = {};
  uint8_t blocks_[kMaxBlocks][256] = {};
};

// Byte-level BPE writes a byte as a printable character (GPT-2's table): bytes 0x21..0x7e,
// 0xa1..0xac, 0xae..0xff stand for themselves, the rest for U+0100 and up.
char32_t byte_to_char(uint8_t byte);
// The byte that a character stands for, or -1.
int char_to_byte(char32_t code);
std::string bytes_to_chars(std::string_view bytes);
// The inverse; false where a character stands for no byte (out is then unspecified).
bool chars_to_bytes(std::string_view chars, std::string& out);

}  // namespace atom
