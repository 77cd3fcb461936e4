#include "server/answer_format.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace atom {
namespace {

using OrderedJson = nlohmann::ordered_json;

std::string dump(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

OrderedJson usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

OrderedJson finish_json(const AnswerPart& part) {
  if (part.finish_reason.empty()) return nullptr;
  return part.finish_reason;
}

class CompletionFormat final : public AnswerFormat {
 public:
  CompletionFormat(const Tokenizer& tokenizer, Identity identity, bool logprobs, bool usage)
      : AnswerFormat(tokenizer, std::move(identity), logprobs, usage) {}
  std::string opening(int64_t) const override { return {}; }

 private:
  const char* object(bool) const override { return "text_completion"; }
  OrderedJson choice(const AnswerPart& part, bool) const override {
    OrderedJson logprobs = nullptr;
    if (logprobs_) logprobs = legacy_logprobs(tokenizer_, part.logprobs);
    return {{"index", part.index},
            {"text", part.text},
            {"logprobs", std::move(logprobs)},
            {"finish_reason", finish_json(part)}};
  }
};

class ChatFormat final : public AnswerFormat {
 public:
  ChatFormat(const Tokenizer& tokenizer, Identity identity, bool logprobs, bool usage)
      : AnswerFormat(tokenizer, std::move(identity), logprobs, usage) {}

  std::string opening(int64_t index) const override {
    return chunk_of({{"index", index},
                     {"delta", {{"role", "assistant"}, {"content", ""}}},
                     {"logprobs", nullptr},
                     {"finish_reason", nullptr}});
  }

 private:
  const char* object(bool streamed) const override {
    return streamed ? "chat.completion.chunk" : "chat.completion";
  }
  OrderedJson choice(const AnswerPart& part, bool streamed) const override {
    OrderedJson message = OrderedJson::object();
    if (!streamed) {
      message["role"] = "assistant";
      message["content"] = nullptr;
    }
    if (!part.text.empty() || (!streamed && part.calls.empty())) message["content"] = part.text;
    if (!part.calls.empty()) message["tool_calls"] = calls_json(part, streamed);
    OrderedJson logprobs = nullptr;
    if (logprobs_) logprobs = chat_logprobs(tokenizer_, part.logprobs);
    return {{"index", part.index},
            {streamed ? "delta" : "message", std::move(message)},
            {"logprobs", std::move(logprobs)},
            {"finish_reason", finish_json(part)}};
  }
  OrderedJson calls_json(const AnswerPart& part, bool streamed) const {
    OrderedJson calls = OrderedJson::array();
    for (size_t i = 0; i < part.calls.size(); ++i) {
      const int64_t number = part.first_call + static_cast<int64_t>(i);
      OrderedJson call = OrderedJson::object();
      if (streamed) call["index"] = number;
      // Unique among all answers, because the answer's id is.
      call["id"] = fmt::format("call_{}_{}_{}", identity_.id, part.index, number);
      call["type"] = "function";
      call["function"] = {{"name", part.calls[i].name}, {"arguments", part.calls[i].arguments}};
      calls.push_back(std::move(call));
    }
    return calls;
  }
};

}  // namespace

OrderedJson AnswerFormat::envelope(bool streamed) const {
  return {{"id", identity_.id},
          {"object", object(streamed)},
          {"created", identity_.created},
          {"model", identity_.model}};
}

std::string AnswerFormat::chunk_of(OrderedJson choice) const {
  OrderedJson body = envelope(true);
  body["choices"] = OrderedJson::array({std::move(choice)});
  if (include_usage_) body["usage"] = nullptr;
  return dump(body);
}

std::string AnswerFormat::whole(const std::vector<AnswerPart>& parts, const Usage& usage) const {
  OrderedJson body = envelope(false);
  OrderedJson& choices = body["choices"] = OrderedJson::array();
  for (const AnswerPart& part : parts) choices.push_back(choice(part, false));
  body["usage"] = usage_json(usage);
  return dump(body);
}

std::string AnswerFormat::chunk(const AnswerPart& part) const {
  return chunk_of(choice(part, true));
}

std::string AnswerFormat::usage_chunk(const Usage& usage) const {
  OrderedJson body = envelope(true);
  body["choices"] = OrderedJson::array();
  body["usage"] = usage_json(usage);
  return dump(body);
}

std::unique_ptr<AnswerFormat> make_completion_format(const Tokenizer& tokenizer,
                                                     AnswerFormat::Identity identity, bool logprobs,
                                                     bool include_usage) {
  return std::make_unique<CompletionFormat>(tokenizer, std::move(identity), logprobs,
                                            include_usage);
}

std::unique_ptr<AnswerFormat> make_chat_format(const Tokenizer& tokenizer,
                                               AnswerFormat::Identity identity, bool logprobs,
                                               bool include_usage) {
  return std::make_unique<ChatFormat>(tokenizer, std::move(identity), logprobs, include_usage);
}

}  // namespace atom
