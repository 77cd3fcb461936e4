#include "load/openai.h"

#include <nlohmann/json.hpp>

#include "base/printable.h"

namespace atom {
namespace {

constexpr size_t kMaxMessage = 200;
constexpr int64_t kMaxTokens = int64_t{1} << 40;

const Json* member(const Json& value, const char* key) {
  if (!value.is_object()) return nullptr;
  const auto it = value.find(key);
  return it == value.end() ? nullptr : &*it;
}

bool holds_text(const Json* value) {
  return value != nullptr &&
         ((value->is_string() && !value->get_ref<const std::string&>().empty()) ||
          (value->is_array() && !value->empty()));
}

std::optional<int64_t> token_count(const Json& usage, const char* key) {
  const Json* value = member(usage, key);
  if (value == nullptr || !value->is_number_integer()) return std::nullopt;
  const int64_t count = value->get<int64_t>();
  if (count < 0 || count > kMaxTokens) return std::nullopt;
  return count;
}

TokenUsage usage_of(const Json& document) {
  const Json* usage = member(document, "usage");
  if (usage == nullptr) return {};
  return {token_count(*usage, "prompt_tokens"), token_count(*usage, "completion_tokens")};
}

std::optional<std::string> failure_of(const Json& document) {
  const Json* failure = member(document, "error");
  if (failure == nullptr || failure->is_null()) return std::nullopt;
  const Json* message = member(*failure, "message");
  if (message == nullptr) message = failure;
  return printable(message->is_string()
                       ? message->get_ref<const std::string&>()
                       : message->dump(-1, ' ', true, Json::error_handler_t::replace),
                   kMaxMessage);
}

}  // namespace

const char* api_path(Api api) {
  return api == Api::kChat ? "/v1/chat/completions" : "/v1/completions";
}

std::string request_body(Api api, const std::string& model, const GenerationRequest& request,
                         const Json& extra) {
  Json body{{"model", model}, {"max_tokens", request.max_tokens}, {"stream", request.stream}};
  if (request.stream) body["stream_options"] = {{"include_usage", true}};
  if (api == Api::kChat) {
    body["messages"] = Json::array({{{"role", "user"}, {"content", request.prompt}}});
  } else {
    body["prompt"] = request.prompt;
  }
  if (extra.is_object()) body.update(extra);
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<StreamEvent> read_stream_event(std::string_view data) {
  StreamEvent event;
  if (data == "[DONE]") {
    event.done = true;
    return event;
  }
  const Json document = ATOM_TRY(parse_json(data, "event"));
  if (!document.is_object()) return error(ErrorCode::kCorrupt, "event: not a JSON object");
  event.failure = failure_of(document);
  event.usage = usage_of(document);
  if (const Json* choices = member(document, "choices");
      choices != nullptr && choices->is_array()) {
    for (const Json& choice : *choices) {
      event.has_text |= holds_text(member(choice, "text"));
      if (const Json* delta = member(choice, "delta")) {
        for (const char* key : {"content", "reasoning_content", "reasoning", "tool_calls"}) {
          event.has_text |= holds_text(member(*delta, key));
        }
      }
    }
  }
  return event;
}

Result<TokenUsage> read_usage(std::string_view body) {
  return usage_of(ATOM_TRY(parse_json(body, "answer")));
}

std::string failure_message(std::string_view body) {
  const Json document = Json::parse(body.begin(), body.end(), nullptr, false);
  if (!document.is_discarded()) {
    if (const auto message = failure_of(document)) return *message;
    if (const Json* message = member(document, "message"); message && message->is_string()) {
      return printable(message->get_ref<const std::string&>(), kMaxMessage);
    }
  }
  return printable(body, kMaxMessage);
}

Result<std::string> first_model(std::string_view body) {
  const Json document = ATOM_TRY(parse_json(body, "/v1/models"));
  const JsonView view(document, "/v1/models");
  return ATOM_TRY(ATOM_TRY(view.at("data")).at(size_t{0})).get_string("id");
}

}  // namespace atom
