// Cuts a template into tokens, with the whitespace rules of chat templates: trim_blocks and
// lstrip_blocks are on, one newline at the end of the template is dropped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace atom::jinja {

enum class TokenType : uint8_t {
  kText,  // what stands outside of tags
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,  // text is the value, escapes resolved
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenType type = TokenType::kEnd;
  int line = 1;
  std::string text;
  int64_t integer = 0;
  double number = 0;

  bool is(TokenType wanted, std::string_view wanted_text) const {
    return type == wanted && text == wanted_text;
  }
  bool is_name(std::string_view name) const { return is(TokenType::kName, name); }
  bool is_operator(std::string_view op) const { return is(TokenType::kOperator, op); }
  // For messages: "end of template", "'foo'".
  std::string description() const;
};

// Errors begin with "line N: ".
Result<std::vector<Token>> tokenize(std::string_view source);

}  // namespace atom::jinja
