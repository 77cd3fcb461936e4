// Text of a growing token sequence, piece by piece, for streaming.
#pragma once

#include <cstdint>
#include <string>

#include "text/token_decoder.h"
#include "text/tokenizer.h"

namespace atom {

// Feeds on ids one at a time and gives out what is certain: never a part of a UTF-8 character. All
// pieces together are what Tokenizer::decode gives for all ids.
class IncrementalDetokenizer {
 public:
  // The tokenizer must outlive this. at_text_start: whether the first id begins a text; then a
  // sentencepiece model's leading blank is dropped as in decode(). Pass false to continue a prompt
  // whose last character must not run into the first word.
  explicit IncrementalDetokenizer(const Tokenizer& tokenizer, bool skip_special = true,
                                  bool at_text_start = true);

  // The text that became certain by this id; may be empty.
  std::string push(int32_t id);
  // The rest: U+FFFD where the ids end inside a character.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  const TokenDecoder* decoder_;
  bool skip_special_;
  TokenDecoder::Start start_;
  std::string pending_;  // at most 3 bytes of an unfinished character between calls
};

}  // namespace atom
