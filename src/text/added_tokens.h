// Finds the tokens that are matched whole in the text, before anything else happens to it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_spec.h"

namespace atom {

// Longer added tokens are refused, which bounds the work a character of text can cause.
inline constexpr size_t kMaxAddedTokenBytes = 1024;

class AddedTokenMatcher {
 public:
  AddedTokenMatcher() : nodes_(1) {}
  // Matches text instead of token.content where the two differ (normalization). Of two tokens with
  // the same text the first wins.
  void add(const AddedToken& token, std::string_view text);
  bool empty() const { return tokens_.empty(); }

  // A stretch of text between tokens (token null) or a token with the spaces that it swallows.
  struct Part {
    const AddedToken* token;
    size_t begin;
    size_t end;
  };
  // Cuts text into parts: leftmost, then longest match. Special tokens count as plain text where
  // with_special is false.
  std::vector<Part> split(std::string_view text, bool with_special) const;

 private:
  struct Node {
    std::vector<std::pair<uint8_t, uint32_t>> next;  // by byte, unsorted: few
    int32_t token = -1;                              // index into tokens_
  };
  uint32_t child(uint32_t node, uint8_t byte) const;
  std::vector<Node> nodes_;
  bool starts_[256] = {};
  std::vector<AddedToken> tokens_;
};

}  // namespace atom
