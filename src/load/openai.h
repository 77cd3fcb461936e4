// The two of OpenAI's endpoints that generate text: what is sent, and what comes back.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/status.h"

namespace atom {

enum class Api : uint8_t { kCompletions, kChat };

// "/v1/completions" or "/v1/chat/completions".
const char* api_path(Api api);

struct GenerationRequest {
  std::string prompt;
  int64_t max_tokens = 1;
  bool stream = true;
};

// The JSON text of a request. extra: an object whose members are added or replace ours (null:
// none).
std::string request_body(Api api, const std::string& model, const GenerationRequest& request,
                         const Json& extra);

// The token counts of an answer; absent where the server does not say.
struct TokenUsage {
  std::optional<int64_t> prompt_tokens;
  std::optional<int64_t> generated_tokens;
};

// One event of a streamed answer.
struct StreamEvent {
  bool done = false;      // "[DONE]"
  bool has_text = false;  // carries text, reasoning or a tool call: at least one token
  TokenUsage usage;
  std::optional<std::string> failure;  // the server's message where the event is an error
};

Result<StreamEvent> read_stream_event(std::string_view data);

// The usage of an answer that was not streamed.
Result<TokenUsage> read_usage(std::string_view body);

// The message of an error body in OpenAI's shape, or the beginning of the body where it has none;
// one printable line.
std::string failure_message(std::string_view body);

// The name of the first model of a /v1/models answer.
Result<std::string> first_model(std::string_view body);

}  // namespace atom
