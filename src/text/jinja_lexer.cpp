#include "text/jinja_lexer.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>

#include "text/jinja_unicode.h"
#include "text/unicode.h"

namespace atom::jinja {
namespace {

constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                           "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                           ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};

// \r\n and \r become \n, and the last newline goes.
std::string normalize(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(std::string source) : storage_(std::move(source)), source_(storage_) {}

  Result<std::vector<Token>> run() {
    while (pos_ < source_.size()) ATOM_TRY(lex_text());
    add(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  template <class... Args>
  Status fail(fmt::format_string<Args...> format, Args&&... args) const {
    return error(ErrorCode::kCorrupt, "line {}: {}", line_,
                 fmt::format(format, std::forward<Args>(args)...));
  }

  char at(size_t pos) const { return pos < source_.size() ? source_[pos] : '\0'; }
  bool looking_at(std::string_view text) const { return source_.substr(pos_).starts_with(text); }
  size_t skip_spaces(size_t pos) const {
    while (pos < source_.size()) {
      const CodePoint c = decode_at(source_, pos);
      if (!is_space(c.value)) break;
      pos += c.size;
    }
    return pos;
  }

  Token& add(TokenType type, std::string text) {
    tokens_.push_back({type, line_, std::move(text)});
    return tokens_.back();
  }

  // Moves to pos and counts the lines passed.
  void advance_to(size_t pos) {
    const std::string_view passed = source_.substr(pos_, pos - pos_);
    line_ += static_cast<int>(std::count(passed.begin(), passed.end(), '\n'));
    if (pos > pos_) at_line_start_ = source_[pos - 1] == '\n';
    pos_ = pos;
  }

  // Adds the text before a tag at `end`, whose whitespace sign ('-', '+' or 0) decides what of the
  // text's end stays.
  void add_text(size_t end, char sign, bool strip_line) {
    std::string_view text = source_.substr(pos_, end - pos_);
    if (sign == '-') {
      text = strip(text, nullptr, false, true);
    } else if (sign != '+' && strip_line) {
      const size_t line_start = text.rfind('\n') + 1;  // 0 where there is no newline
      if (line_start > 0 || at_line_start_) {
        if (strip(text.substr(line_start), nullptr, true, false).empty()) {
          text = text.substr(0, line_start);
        }
      }
    }
    if (!text.empty()) add(TokenType::kText, std::string(text));
    advance_to(end);
  }

  // The end of a tag that closes with `close` at pos, or npos: "-%}" takes the white space behind
  // it along, "%}" one newline.
  size_t tag_end(size_t pos, std::string_view close, bool plus, bool trim_newline) const {
    const std::string_view rest = source_.substr(pos);
    if (rest.starts_with('-') && rest.substr(1).starts_with(close)) {
      return skip_spaces(pos + 1 + close.size());
    }
    if (plus && rest.starts_with('+') && rest.substr(1).starts_with(close)) {
      return pos + 1 + close.size();
    }
    if (!rest.starts_with(close)) return std::string_view::npos;
    const size_t end = pos + close.size();
    return trim_newline && at(end) == '\n' ? end + 1 : end;
  }

  char sign_at(size_t pos) const { return at(pos) == '-' || at(pos) == '+' ? at(pos) : '\0'; }

  // The end of a "{% word %}" tag that begins at pos, or npos if something else stands there.
  size_t word_tag_end(size_t pos, std::string_view word, bool plus, bool trim_newline) const {
    pos += 2;
    if (sign_at(pos) != '\0') ++pos;
    pos = skip_spaces(pos);
    if (!source_.substr(pos).starts_with(word)) return std::string_view::npos;
    return tag_end(skip_spaces(pos + word.size()), "%}", plus, trim_newline);
  }

  // Text up to the next tag, and the tag.
  Status lex_text() {
    size_t open = pos_;
    for (;; ++open) {
      open = source_.find('{', open);
      if (open == std::string_view::npos) {
        add_text(source_.size(), '+', false);
        return {};
      }
      const char kind = at(open + 1);
      if (kind == '%' || kind == '{' || kind == '#') break;
    }
    const char kind = at(open + 1);
    const char sign = sign_at(open + 2);
    add_text(open, sign, kind != '{');
    if (kind == '%') {
      const size_t raw = word_tag_end(open, "raw", false, false);
      if (raw != std::string_view::npos) return lex_raw(raw);
    }
    if (kind == '#') return lex_comment(open + 2 + (sign != '\0' ? 1 : 0));
    add(kind == '%' ? TokenType::kBlockBegin : TokenType::kVariableBegin, "");
    advance_to(open + 2 + (sign != '\0' ? 1 : 0));
    return lex_tag(kind == '%');
  }

  Status lex_comment(size_t begin) {
    advance_to(begin);
    const size_t close = source_.find("#}", pos_);
    if (close == std::string_view::npos) {
      // Like Jinja, lets a comment pass that the template ends with the start of.
      return pos_ == source_.size() ? Status() : fail("Missing end of comment tag");
    }
    const bool has_sign = close > begin && sign_at(close - 1) != '\0';
    advance_to(tag_end(has_sign ? close - 1 : close, "#}", true, true));
    return {};
  }

  Status lex_raw(size_t begin) {
    advance_to(begin);
    for (size_t open = source_.find("{%", pos_); open != std::string_view::npos;
         open = source_.find("{%", open + 1)) {
      const size_t end = word_tag_end(open, "endraw", true, true);
      if (end == std::string_view::npos) continue;
      add_text(open, sign_at(open + 2), true);
      advance_to(end);
      return {};
    }
    return pos_ == source_.size() ? Status() : fail("Missing end of raw directive");
  }

  Status lex_tag(bool block) {
    std::vector<char> open_brackets;
    while (pos_ < source_.size()) {
      if (open_brackets.empty()) {
        const size_t end = tag_end(pos_, block ? "%}" : "}}", block, block);
        if (end != std::string_view::npos) {
          add(block ? TokenType::kBlockEnd : TokenType::kVariableEnd, "");
          advance_to(end);
          return {};
        }
      }
      const CodePoint c = decode_at(source_, pos_);
      if (is_space(c.value)) {
        advance_to(skip_spaces(pos_));
      } else if (c.value < 0x80 && is_digit(static_cast<char>(c.value))) {
        ATOM_TRY(lex_number());
      } else if (is_identifier_start(c.value)) {
        lex_name();
      } else if (c.value == '\'' || c.value == '"') {
        ATOM_TRY(lex_string());
      } else {
        ATOM_TRY(lex_operator(open_brackets));
      }
    }
    return {};
  }

  void lex_name() {
    size_t end = pos_;
    while (end < source_.size()) {
      const CodePoint c = decode_at(source_, end);
      if (!is_identifier_part(c.value)) break;
      end += c.size;
    }
    add(TokenType::kName, std::string(source_.substr(pos_, end - pos_)));
    advance_to(end);
  }

  Status lex_operator(std::vector<char>& open_brackets) {
    const auto* op = std::find_if(std::begin(kOperators), std::end(kOperators),
                                  [&](std::string_view text) { return looking_at(text); });
    if (op == std::end(kOperators)) {
      const CodePoint c = decode_at(source_, pos_);
      return fail("unexpected char '{}'",
                  c.value == kInvalidByte ? "?" : source_.substr(pos_, c.size));
    }
    const char first = (*op)[0];
    if (first == '(' || first == '[' || first == '{') {
      open_brackets.push_back(first == '(' ? ')' : first == '[' ? ']' : '}');
    } else if (first == ')' || first == ']' || first == '}') {
      if (open_brackets.empty()) return fail("unexpected '{}'", first);
      if (open_brackets.back() != first) {
        return fail("unexpected '{}', expected '{}'", first, open_brackets.back());
      }
      open_brackets.pop_back();
    }
    add(TokenType::kOperator, std::string(*op));
    advance_to(pos_ + op->size());
    return {};
  }

  // The end of digits of a base, with single underscores between them.
  template <class IsDigit>
  size_t digits_end(size_t pos, bool leading_underscore, IsDigit is_base_digit) const {
    size_t end = pos;
    for (;;) {
      const bool underscore = at(end) == '_' && (end > pos || leading_underscore);
      const size_t digit = end + (underscore ? 1 : 0);
      if (digit >= source_.size() || !is_base_digit(source_[digit])) return end;
      end = digit + 1;
    }
  }

  // The end of a float literal at pos_, or 0.
  size_t float_end() const {
    if (pos_ > 0 && source_[pos_ - 1] == '.') return 0;
    size_t end = digits_end(pos_, false, is_digit);
    bool is_float = false;
    if (at(end) == '.' && is_digit(at(end + 1))) {
      end = digits_end(end + 1, false, is_digit);
      is_float = true;
    }
    if (at(end) == 'e' || at(end) == 'E') {
      const size_t exponent = end + (at(end + 1) == '+' || at(end + 1) == '-' ? 2 : 1);
      if (is_digit(at(exponent))) return digits_end(exponent, false, is_digit);
    }
    return is_float ? end : 0;
  }

  size_t integer_end(int& base) const {
    const char mark = static_cast<char>(at(pos_ + 1) | 0x20);
    base = 10;
    if (source_[pos_] != '0') return digits_end(pos_, false, is_digit);
    size_t end = 0;
    if (mark == 'x') {
      base = 16;
      end = digits_end(pos_ + 2, true, [](char c) { return std::isxdigit(uint8_t(c)) != 0; });
    } else if (mark == 'o') {
      base = 8;
      end = digits_end(pos_ + 2, true, [](char c) { return c >= '0' && c <= '7'; });
    } else if (mark == 'b') {
      base = 2;
      end = digits_end(pos_ + 2, true, [](char c) { return c == '0' || c == '1'; });
    }
    if (end > pos_ + 2) return end;
    base = 10;
    return digits_end(pos_, false, [](char c) { return c == '0'; });
  }

  Status lex_number() {
    int base = 10;
    size_t end = float_end();
    const bool is_float = end != 0;
    if (!is_float) end = integer_end(base);
    std::string text(source_.substr(pos_, end - pos_));
    std::erase(text, '_');
    Token& token = add(is_float ? TokenType::kFloat : TokenType::kInteger, text);
    if (is_float) {
      token.number = std::strtod(text.c_str(), nullptr);
    } else {
      const char* begin = text.data() + (base == 10 ? 0 : 2);
      const auto result = std::from_chars(begin, text.data() + text.size(), token.integer, base);
      if (result.ec != std::errc()) return fail("the integer {} takes more than 64 bits", text);
    }
    advance_to(end);
    return {};
  }

  Status lex_string() {
    const char quote = source_[pos_];
    size_t end = pos_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return fail("unexpected char '{}'", quote);
    std::string value = ATOM_TRY(unescape(source_.substr(pos_ + 1, end - pos_ - 1)));
    add(TokenType::kString, std::move(value));
    advance_to(end + 1);
    return {};
  }

  // Reads `count` hex digits at pos.
  Result<uint32_t> hex(std::string_view text, size_t pos, size_t count) const {
    uint32_t value = 0;
    const char* begin = text.data() + std::min(pos, text.size());
    const char* end = text.data() + std::min(pos + count, text.size());
    const auto result = std::from_chars(begin, end, value, 16);
    if (result.ec != std::errc() || result.ptr != begin + count) {
      return fail("a \\ escape is truncated in a string");
    }
    return value;
  }

  Result<std::string> unescape(std::string_view text) const {
    std::string out;
    for (size_t pos = 0; pos < text.size();) {
      if (text[pos] != '\\') {
        out += text[pos++];
        continue;
      }
      const char kind = text[pos + 1];  // lex_string leaves no lone backslash at the end
      pos += 2;
      switch (kind) {
        case '\n':
          break;
        case '\\':
        case '\'':
        case '"':
          out += kind;
          break;
        case 'a':
          out += '\a';
          break;
        case 'b':
          out += '\b';
          break;
        case 'f':
          out += '\f';
          break;
        case 'n':
          out += '\n';
          break;
        case 'r':
          out += '\r';
          break;
        case 't':
          out += '\t';
          break;
        case 'v':
          out += '\v';
          break;
        case 'x':
        case 'u':
        case 'U': {
          const size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : 8;
          uint32_t value = ATOM_TRY(hex(text, pos, digits));
          pos += digits;
          if (value >= 0xd800 && value < 0xdc00 && text.substr(pos).starts_with("\\u")) {
            const uint32_t low = ATOM_TRY(hex(text, pos + 2, 4));
            if (low >= 0xdc00 && low < 0xe000) {
              value = 0x10000 + ((value - 0xd800) << 10) + (low - 0xdc00);
              pos += 6;
            }
          }
          if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) {
            return fail("\\{} escape {:#x} is no character", kind, value);
          }
          append_utf8(out, value);
          break;
        }
        case 'N':
          return fail("\\N escapes are not supported");
        default:
          if (kind >= '0' && kind <= '7') {
            uint32_t value = 0;
            --pos;
            for (int i = 0; i < 3 && pos < text.size() && text[pos] >= '0' && text[pos] <= '7';
                 ++i) {
              value = value * 8 + static_cast<uint32_t>(text[pos++] - '0');
            }
            append_utf8(out, value);
          } else {
            out += '\\';
            out += kind;
          }
      }
    }
    return out;
  }

  std::string storage_;
  std::string_view source_;
  std::vector<Token> tokens_;
  size_t pos_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
};

}  // namespace

std::string Token::description() const {
  switch (type) {
    case TokenType::kText:
      return "template data";
    case TokenType::kVariableBegin:
      return "begin of print statement";
    case TokenType::kVariableEnd:
      return "end of print statement";
    case TokenType::kBlockBegin:
      return "begin of statement block";
    case TokenType::kBlockEnd:
      return "end of statement block";
    case TokenType::kEnd:
      return "end of template";
    default:
      return fmt::format("'{}'", text.size() > 40 ? text.substr(0, 40) + "..." : text);
  }
}

Result<std::vector<Token>> tokenize(std::string_view source) {
  return Lexer(normalize(source)).run();
}

}  // namespace atom::jinja
