// Opening MODEL, in any of its forms, so that it can run: weights on a device, tokenizer and chat
// template beside them.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/weights.h"
#include "ops/backend.h"
#include "text/tokenizer.h"

namespace atom {

struct OpenedModel {
  std::string origin;                // the path, for messages
  std::unique_ptr<Backend> backend;  // outlives what is made of the weights
  std::shared_ptr<const DecoderWeights> weights;
  std::unique_ptr<const Tokenizer> tokenizer;
  std::string chat_template;           // Jinja source, or empty
  std::vector<int32_t> prefix_tokens;  // that stand in front of every sequence by themselves
};

// A prompt whose first tokens are the model's constant prefix (BOS, as a rule) would have it twice:
// takes it off, unless that would leave nothing.
std::vector<int32_t> without_prefix(std::vector<int32_t> prompt, std::span<const int32_t> prefix);

// path: a Hugging Face folder, a GGUF file or an Atom checkpoint. Float weights stay in the type
// they are stored in where that is F16 or BF16 throughout, else they become F32. The tokenizer's
// ends of generation are added to the configuration's. Fails also where the tokenizer has ids that
// the model does not.
Result<OpenedModel> open_model(const std::filesystem::path& path, std::string_view device);

}  // namespace atom
