// Which tensors a model of a given shape consists of, under their Hugging Face names.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/model_config.h"

namespace atom {

struct TensorSpec {
  std::string name;  // "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;
};

// A linear map: `<name>.weight` [rows, cols], and `<name>.bias` [rows] if it has one.
struct LinearSpec {
  std::string name;  // "model.layers.0.self_attn.q_proj"
  int64_t rows = 0, cols = 0;
  bool bias = false;
};

// The linears of a layer, in the order q, k, v, o, then gate, up, down; these three for each expert
// where there are experts.
std::vector<LinearSpec> layer_linears(const ModelConfig& config, int64_t layer);
// What stays in floats in every checkpoint: the norms (input, post-attention, and q and k where
// there are such) and the router [E, D] of a mixture of experts.
std::vector<TensorSpec> layer_floats(const ModelConfig& config, int64_t layer);
// All tensors of an unquantized model: embeddings, layers, last norm, lm_head unless tied.
std::vector<TensorSpec> model_tensors(const ModelConfig& config);

// Checks that `found`, in any order, is what the configuration calls for: nothing missing, no wrong
// shape, and nothing that would be left out of the computation. origin stands before the message.
Status check_model_tensors(const ModelConfig& config, const std::vector<TensorSpec>& found,
                           const std::string& origin);

// "[576, 1536]"
std::string shape_text(const std::vector<int64_t>& shape);

inline constexpr std::string_view kEmbedTensor = "model.embed_tokens";
inline constexpr std::string_view kHeadTensor = "lm_head";
inline constexpr std::string_view kLastNormTensor = "model.norm.weight";

// Within a layer: the router of a mixture of experts.
inline constexpr std::string_view kRouterTensor = "block_sparse_moe.gate.weight";

// Tensor names of layer i: layer_tensor(3, "self_attn.q_proj.weight").
std::string layer_tensor(int64_t layer, std::string_view suffix);

}  // namespace atom
