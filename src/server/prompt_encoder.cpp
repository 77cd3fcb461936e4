#include "server/prompt_encoder.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace atom {
namespace {

// A normalizer may shorten a text; no known one by more than this.
constexpr int64_t kNormalizedShare = 4;

}  // namespace

PromptEncoder::PromptEncoder(const OpenedModel& model, int64_t context)
    : model_(model), context_(context) {
  for (int32_t id = 0; id < model.tokenizer->vocab_size(); ++id) {
    longest_token_bytes_ = std::max(longest_token_bytes_,
                                    static_cast<int64_t>(model.tokenizer->token_bytes(id).size()));
  }
  if (model.chat_template.empty()) {
    chat_status_ = error(ErrorCode::kUnsupported,
                         "this model has no chat template; /v1/completions continues any text");
    return;
  }
  Result<ChatEncoder> chat = ChatEncoder::create(model);
  if (chat.ok()) {
    chat_ = std::move(chat).value();
  } else {
    chat_status_ = chat.status();
  }
}

// Refuses what cannot fit whatever its tokens are, before they are looked for.
std::optional<ApiError> PromptEncoder::check_bytes(size_t bytes, const char* param) const {
  if (static_cast<int64_t>(bytes) <= context_ * longest_token_bytes_ * kNormalizedShare) {
    return std::nullopt;
  }
  return ApiError{.message = fmt::format("request: {}: {} bytes are more than the context of {} "
                                         "tokens can hold",
                                         param, bytes, context_),
                  .param = param,
                  .code = "context_length_exceeded"};
}

std::optional<ApiError> PromptEncoder::encode_text(const std::string& text, bool add_special,
                                                   bool scored, std::vector<int32_t>& ids) const {
  if (auto problem = check_bytes(text.size(), "prompt")) return problem;
  Result<std::vector<int32_t>> encoded =
      model_.tokenizer->encode(text, add_special, /*parse_special=*/true);
  if (!encoded.ok()) return api_error(encoded.status(), "prompt");
  ids = encode_ids(std::move(encoded).value(), scored);
  return std::nullopt;
}

std::vector<int32_t> PromptEncoder::encode_ids(std::vector<int32_t> ids, bool scored) const {
  if (scored) return ids;
  return without_prefix(std::move(ids), model_.prefix_tokens);
}

std::optional<ApiError> PromptEncoder::encode_chat(const ChatRequest& request,
                                                   std::vector<int32_t>& ids) const {
  if (!chat_) return api_error(chat_status_, "messages");
  size_t bytes = 0;
  for (const auto& message : request.messages) {
    if (message["content"].is_string()) {
      bytes += message["content"].get_ref<const std::string&>().size();
    }
  }
  if (auto problem = check_bytes(bytes, "messages")) return problem;
  nlohmann::ordered_json variables = request.template_variables;
  variables["messages"] = request.messages;
  if (!request.tools.empty()) {
    if (!chat_->takes_tools()) {
      return api_error(error(ErrorCode::kUnsupported,
                             "request: tools: this model's chat template has no place for tools"),
                       "tools");
    }
    variables["tools"] = request.tools;
  }
  Result<std::vector<int32_t>> encoded = chat_->encode(std::move(variables));
  if (!encoded.ok()) {
    ApiError problem = api_error(encoded.status(), "messages");
    problem.status = 400;  // templates refuse conversations that they were not made for
    return problem;
  }
  ids = std::move(encoded).value();
  return std::nullopt;
}

std::optional<ApiError> PromptEncoder::check_length(const std::vector<int32_t>& ids,
                                                    int64_t max_tokens) const {
  const auto length = static_cast<int64_t>(ids.size());
  if (length == 0) {
    return ApiError{.message = "request: the prompt has no tokens", .param = "prompt"};
  }
  if (length + (max_tokens == 0 ? 0 : 1) <= context_) return std::nullopt;
  return ApiError{.message = fmt::format("the prompt has {} tokens, which leaves no room in a "
                                         "context of {}",
                                         length, context_),
                  .code = "context_length_exceeded"};
}

}  // namespace atom
