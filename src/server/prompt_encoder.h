// What clients send as prompts, as token ids that fit the context.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "app/chat.h"
#include "app/open_model.h"
#include "server/api_error.h"
#include "server/generation_request.h"

namespace atom {

// Thread-safe. The model must outlive it.
class PromptEncoder {
 public:
  // context: tokens that prompt and output may have together.
  PromptEncoder(const OpenedModel& model, int64_t context);

  // A text as the model's tokenizer has it, with BOS where the model wants one; add_special: false
  // leaves that away. scored: its tokens' log-probabilities are wanted, so that a BOS stays in
  // although the model has one as its constant prefix.
  std::optional<ApiError> encode_text(const std::string& text, bool add_special, bool scored,
                                      std::vector<int32_t>& ids) const;
  // A conversation by the model's chat template.
  std::optional<ApiError> encode_chat(const ChatRequest& request, std::vector<int32_t>& ids) const;
  // Ids from the client, likewise without a BOS that the model has as its constant prefix.
  std::vector<int32_t> encode_ids(std::vector<int32_t> ids, bool scored) const;
  // Whether a prompt leaves room for an output of at least one token (or of none, where none is
  // wanted).
  std::optional<ApiError> check_length(const std::vector<int32_t>& ids, int64_t max_tokens) const;

 private:
  std::optional<ApiError> check_bytes(size_t bytes, const char* param) const;

  const OpenedModel& model_;
  const int64_t context_;
  int64_t longest_token_bytes_ = 1;
  std::optional<ChatEncoder> chat_;
  Status chat_status_;  // why there is none
};

}  // namespace atom
