// The bodies of /v1/completions and /v1/chat/completions as typed fields. docs/http_api.md lists
// them.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "engine/sampler.h"
#include "server/api_error.h"

namespace atom {

inline constexpr int64_t kMaxPrompts = 1024;    // of one request
inline constexpr int64_t kMaxStopStrings = 16;  // of one request
inline constexpr int64_t kMaxStopBytes = 1024;  // of one stop string

// What a request must know of the model to be checked.
struct ModelFacts {
  int32_t vocab = 0;
};

// What an output has to be, beyond a text of the model's choice.
struct OutputShape {
  enum class Kind : uint8_t { kAnyText, kJsonObject, kJsonSchema, kRegex, kChoice };
  Kind kind = Kind::kAnyText;
  std::string text = {};                  // the schema as JSON, or the regular expression
  std::vector<std::string> choices = {};  // texts of which it is one
  std::string param = {};                 // the field that asked for it
};

// What both endpoints share.
struct GenerationFields {
  std::string model = {};  // as the client wrote it; any name is served
  SamplingParams sampling{.temperature = 1.0};
  bool seeded = false;      // else the server draws a seed
  int64_t max_tokens = -1;  // of each output; -1: the endpoint's default
  int64_t n = 1;            // outputs to return
  int64_t best_of = 1;      // outputs to choose them from, at least n
  std::vector<std::string> stop = {};
  std::vector<int32_t> stop_ids = {};
  bool ignore_eos = false;
  bool skip_special = true;  // leave special tokens out of the text
  int64_t logprobs = -1;     // alternatives to report; -1: no log-probabilities at all
  bool stream = false;
  bool include_usage = false;  // a last chunk with the usage
  int64_t priority = 0;        // -100..100; as in vLLM, lower goes first
  OutputShape shape = {};
  std::string cache_salt = {};  // only requests with equal salts share cached prompts
};

struct CompletionRequest : GenerationFields {
  // Each prompt a text or token ids.
  std::vector<std::variant<std::string, std::vector<int32_t>>> prompts = {};
  bool echo = false;
};

struct ChatRequest : GenerationFields {
  nlohmann::ordered_json messages = {};  // as templates expect them: contents are text, arguments
                                         // of tool calls are objects
  nlohmann::ordered_json tools = {};  // an array; empty where none were given or none may be called
  nlohmann::ordered_json template_variables = {};  // an object: further variables for the template
};

// text: the body. The error says which field is wrong.
std::optional<ApiError> parse_completion_request(std::string_view text, const ModelFacts& facts,
                                                 CompletionRequest& request);
std::optional<ApiError> parse_chat_request(std::string_view text, const ModelFacts& facts,
                                           ChatRequest& request);

}  // namespace atom
