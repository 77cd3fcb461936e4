// What the metadata of a GGUF file say about the model, in our terms.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "io/gguf.h"
#include "io/model_config.h"
#include "io/model_source.h"

namespace atom {

// Architectures llama (Mistral's and Mixtral's files say llama too), qwen2 and qwen3; others are
// refused.
Result<ModelConfig> gguf_model_config(const GgufFile& file);
// The tokenizer's arrays, special tokens and the chat template.
Result<TextAssets> gguf_text_assets(const GgufFile& file);
// The tensors that one of a GGUF file stands for: "blk.0.attn_q.weight" is
// "model.layers.0.self_attn.q_proj.weight"; "blk.0.ffn_up_exps.weight" has w3 of every expert, one
// after another. Empty for unknown names. experts: E of the model.
std::vector<std::string> hugging_face_names(std::string_view gguf_name, int64_t experts);

inline constexpr std::string_view kGgufRopeFactors = "rope_freqs.weight";

}  // namespace atom
