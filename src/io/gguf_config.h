// What the metadata of a GGUF file say about the model, in our terms.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "io/gguf.h"
#include "io/model_config.h"
#include "io/model_source.h"

namespace atom {

// Architectures llama (Mistral's files say llama too), qwen2 and qwen3; others are refused.
Result<ModelConfig> gguf_model_config(const GgufFile& file);
// The tokenizer's arrays, special tokens and the chat template.
Result<TextAssets> gguf_text_assets(const GgufFile& file);
// "blk.0.attn_q.weight" -> "model.layers.0.self_attn.q_proj.weight"; empty for unknown names.
std::optional<std::string> hugging_face_name(std::string_view gguf_name);

inline constexpr std::string_view kGgufRopeFactors = "rope_freqs.weight";

}  // namespace atom
