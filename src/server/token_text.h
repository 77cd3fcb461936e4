// Tokens as the log-probability fields of the API show them.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "engine/request.h"
#include "text/tokenizer.h"

namespace atom {

// The token's text, or "bytes:\xe2\x80" where its bytes alone are no text.
std::string token_text(const Tokenizer& tokenizer, int32_t id);

// A token with the place of its text, in characters.
struct PlacedToken {
  ScoredToken scored = {};
  int64_t offset = 0;
};

// The legacy shape of /v1/completions: {"tokens", "token_logprobs", "top_logprobs", "text_offset"},
// one entry a token. Where there is no log-probability (a text's first token) stands null.
nlohmann::ordered_json legacy_logprobs(const Tokenizer& tokenizer,
                                       std::span<const PlacedToken> tokens);

// The shape of /v1/chat/completions: {"content": [{"token", "logprob", "bytes", "top_logprobs"}]}.
nlohmann::ordered_json chat_logprobs(const Tokenizer& tokenizer,
                                     std::span<const PlacedToken> tokens);

}  // namespace atom
