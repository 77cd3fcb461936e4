// Turns ids back into bytes. Every decoder that is supported comes down to a table: each token
// contributes fixed bytes wherever it stands, except that something may be dropped at the start.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/flat_map.h"
#include "text/tokenizer_spec.h"
#include "text/unicode.h"

namespace atom {

class TokenDecoder {
 public:
  // names: the tokens' texts by id
  // names the file.
  static Result<TokenDecoder> create(const std::vector<DecoderStep>& steps,
                                     const std::vector<std::string>& names, std::string_view place);

  // What a token contributes after the first one; empty where the id names no token.
  std::string_view bytes(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < bytes_.size() ? bytes_[static_cast<size_t>(id)]
                                                              : std::string_view();
  }
  bool contains(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < exists_.size() && exists_[static_cast<size_t>(id)];
  }

  // What goes on at the start of a text.
  struct Start {
    bool first_token = true;
    int32_t strip_left = 0;  // characters that may still be dropped
  };
  Start start() const { return {true, strip_left_}; }
  // Appends what the next token of a text contributes, as bytes.
  void append(int32_t id, Start& start, std::string& out) const;

  InvalidUtf8 invalid_policy() const { return policy_; }

 private:
  StringTable bytes_;
  std::vector<bool> exists_;
  InvalidUtf8 policy_ = InvalidUtf8::kPerSequence;
  bool spaces_between_ = false;  // no decoder: tokens are joined by blanks
  StringTable first_bytes_;      // Metaspace: of each token as the first one; else empty
  std::string strip_character_;
  int32_t strip_left_ = 0;
};

}  // namespace atom
