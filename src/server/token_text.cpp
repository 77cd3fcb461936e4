#include "server/token_text.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "text/unicode.h"

namespace atom {
namespace {

using OrderedJson = nlohmann::ordered_json;

// JSON has no infinity: a token that cannot come has this instead, as in OpenAI's API.
constexpr double kLeastLogprob = -9999.0;

OrderedJson logprob_json(float logprob) {
  if (std::isnan(logprob)) return nullptr;
  return std::max(static_cast<double>(logprob), kLeastLogprob);
}

OrderedJson bytes_json(const Tokenizer& tokenizer, int32_t id) {
  OrderedJson bytes = OrderedJson::array();
  for (const char c : tokenizer.token_bytes(id)) bytes.push_back(static_cast<uint8_t>(c));
  return bytes;
}

OrderedJson chat_entry(const Tokenizer& tokenizer, int32_t id, float logprob) {
  return {{"token", token_text(tokenizer, id)},
          {"logprob", logprob_json(logprob)},
          {"bytes", bytes_json(tokenizer, id)}};
}

}  // namespace

std::string token_text(const Tokenizer& tokenizer, int32_t id) {
  const std::string_view bytes = tokenizer.token_bytes(id);
  if (is_valid_utf8(bytes)) return std::string(bytes);
  std::string text = "bytes:";
  for (const char c : bytes) text += fmt::format("\\x{:02x}", static_cast<uint8_t>(c));
  return text;
}

OrderedJson legacy_logprobs(const Tokenizer& tokenizer, std::span<const PlacedToken> tokens) {
  OrderedJson texts = OrderedJson::array();
  OrderedJson logprobs = OrderedJson::array();
  OrderedJson tops = OrderedJson::array();
  OrderedJson offsets = OrderedJson::array();
  for (const auto& [scored, offset] : tokens) {
    std::string text = token_text(tokenizer, scored.token);
    logprobs.push_back(logprob_json(scored.logprob));
    offsets.push_back(offset);
    if (std::isnan(scored.logprob)) {
      tops.push_back(nullptr);
    } else {
      // The most likely of those that read alike; the token itself is always among them.
      OrderedJson top = OrderedJson::object();
      for (const TokenLogprob& other : scored.top) {
        top.emplace(token_text(tokenizer, other.token), logprob_json(other.logprob));
      }
      top.emplace(text, logprob_json(scored.logprob));
      tops.push_back(std::move(top));
    }
    texts.push_back(std::move(text));
  }
  return {{"tokens", std::move(texts)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

OrderedJson chat_logprobs(const Tokenizer& tokenizer, std::span<const PlacedToken> tokens) {
  OrderedJson content = OrderedJson::array();
  for (const PlacedToken& token : tokens) {
    OrderedJson entry = chat_entry(tokenizer, token.scored.token, token.scored.logprob);
    OrderedJson top = OrderedJson::array();
    for (const TokenLogprob& other : token.scored.top) {
      top.push_back(chat_entry(tokenizer, other.token, other.logprob));
    }
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

}  // namespace atom
