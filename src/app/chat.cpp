#include "app/chat.h"

#include <nlohmann/json.hpp>

namespace atom {

Result<ChatEncoder> ChatEncoder::create(const OpenedModel& model) {
  if (model.chat_template.empty()) {
    return error(ErrorCode::kUnsupported, "{}: the model has no chat template", model.origin);
  }
  ChatTemplate parsed =
      ATOM_TRY(ChatTemplate::parse(model.chat_template, model.origin + ": chat template"));
  return ChatEncoder(model, std::move(parsed));
}

Result<std::vector<int32_t>> ChatEncoder::encode(std::span<const ChatMessage> messages) const {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const ChatMessage& message : messages) {
    list.push_back({{"role", message.role}, {"content", message.content}});
  }
  return encode(nlohmann::ordered_json{{"messages", std::move(list)}});
}

Result<std::vector<int32_t>> ChatEncoder::encode(nlohmann::ordered_json variables) const {
  const Tokenizer& tokenizer = *model_->tokenizer;
  const auto piece = [&](int32_t id) {
    return id < 0 ? std::string() : std::string(tokenizer.piece(id));
  };
  variables.emplace("add_generation_prompt", true);
  variables.emplace("bos_token", piece(tokenizer.bos_id()));
  variables.emplace("eos_token", piece(tokenizer.eos_id()));
  const std::string prompt = ATOM_TRY(template_.render(variables));
  // The template wrote all special tokens itself, the first one too.
  return without_prefix(
      ATOM_TRY(tokenizer.encode(prompt, /*add_special=*/false, /*parse_special=*/true)),
      model_->prefix_tokens);
}

bool ChatEncoder::takes_tools() const {
  return model_->chat_template.find("tools") != std::string::npos;
}

}  // namespace atom
