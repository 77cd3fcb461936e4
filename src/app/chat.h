// Conversations as prompts.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "app/open_model.h"
#include "base/status.h"
#include "text/chat_template.h"

namespace atom {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

// Renders conversations by a model's own template. The model must outlive it.
class ChatEncoder {
 public:
  // Fails where the model has no template, or one that cannot be read.
  static Result<ChatEncoder> create(const OpenedModel& model);

  // The prompt that asks for the next answer of the assistant, as token ids, without the
  // model's constant prefix.
  Result<std::vector<int32_t>> encode(std::span<const ChatMessage> messages) const;
  // The same from the variables of the template: an object with messages, perhaps tools, and
  // whatever else the template reads. What it does not have of add_generation_prompt, bos_token and
  // eos_token is added. Thread-safe.
  Result<std::vector<int32_t>> encode(nlohmann::ordered_json variables) const;

  // Whether the template has a place for tools.
  bool takes_tools() const;

 private:
  ChatEncoder(const OpenedModel& model, ChatTemplate chat_template)
      : model_(&model), template_(std::move(chat_template)) {}
  const OpenedModel* model_;
  ChatTemplate template_;
};

}  // namespace atom
