#include "io/model_tensors.h"

#include <algorithm>
#include <map>

#include "base/printable.h"

namespace atom {

std::string layer_tensor(int64_t layer, std::string_view suffix) {
  return fmt::format("model.layers.{}.{}", layer, suffix);
}

std::vector<LinearSpec> layer_linears(const ModelConfig& c, int64_t layer) {
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  std::vector<LinearSpec> linears = {
      {layer_tensor(layer, "self_attn.q_proj"), q, c.hidden, c.qkv_bias},
      {layer_tensor(layer, "self_attn.k_proj"), kv, c.hidden, c.qkv_bias},
      {layer_tensor(layer, "self_attn.v_proj"), kv, c.hidden, c.qkv_bias},
      {layer_tensor(layer, "self_attn.o_proj"), c.hidden, q, c.o_bias},
  };
  const auto add_mlp = [&](const std::string& prefix, const char* gate, const char* up,
                           const char* down) {
    linears.push_back({layer_tensor(layer, prefix + gate), c.ffn, c.hidden, c.mlp_bias});
    linears.push_back({layer_tensor(layer, prefix + up), c.ffn, c.hidden, c.mlp_bias});
    linears.push_back({layer_tensor(layer, prefix + down), c.hidden, c.ffn, c.mlp_bias});
  };
  if (c.experts == 0) add_mlp("mlp.", "gate_proj", "up_proj", "down_proj");
  for (int64_t e = 0; e < c.experts; ++e) {
    add_mlp(fmt::format("block_sparse_moe.experts.{}.", e), "w1", "w3", "w2");
  }
  return linears;
}

std::vector<TensorSpec> layer_floats(const ModelConfig& c, int64_t layer) {
  std::vector<TensorSpec> floats = {
      {layer_tensor(layer, "input_layernorm.weight"), {c.hidden}},
      {layer_tensor(layer, "post_attention_layernorm.weight"), {c.hidden}},
  };
  if (c.qk_norm) {
    floats.push_back({layer_tensor(layer, "self_attn.q_norm.weight"), {c.head_dim}});
    floats.push_back({layer_tensor(layer, "self_attn.k_norm.weight"), {c.head_dim}});
  }
  if (c.experts > 0) floats.push_back({layer_tensor(layer, kRouterTensor), {c.experts, c.hidden}});
  return floats;
}

std::vector<TensorSpec> model_tensors(const ModelConfig& c) {
  std::vector<TensorSpec> tensors = {
      {fmt::format("{}.weight", kEmbedTensor), {c.vocab, c.hidden}},
      {std::string(kLastNormTensor), {c.hidden}},
  };
  if (!c.tied_embeddings) {
    tensors.push_back({fmt::format("{}.weight", kHeadTensor), {c.vocab, c.hidden}});
  }
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    for (LinearSpec& linear : layer_linears(c, layer)) {
      tensors.push_back({linear.name + ".weight", {linear.rows, linear.cols}});
      if (linear.bias) tensors.push_back({linear.name + ".bias", {linear.rows}});
    }
    for (TensorSpec& floats : layer_floats(c, layer)) tensors.push_back(std::move(floats));
  }
  return tensors;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

Status check_model_tensors(const ModelConfig& config, const std::vector<TensorSpec>& found,
                           const std::string& origin) {
  std::map<std::string_view, const TensorSpec*> left;
  for (const TensorSpec& tensor : found) left.emplace(tensor.name, &tensor);
  for (const TensorSpec& wanted : model_tensors(config)) {
    const auto it = left.find(wanted.name);
    if (it == left.end()) {
      return error(ErrorCode::kNotFound, "{}: tensor '{}' is missing", origin, wanted.name);
    }
    if (it->second->shape != wanted.shape) {
      return error(ErrorCode::kCorrupt, "{}: tensor '{}': shape {}, expected {}", origin,
                   wanted.name, shape_text(it->second->shape), shape_text(wanted.shape));
    }
    left.erase(it);
  }
  for (const auto& [name, tensor] : left) {
    // Precomputed frequencies and a second copy of tied embeddings change nothing.
    if (name.ends_with(".rotary_emb.inv_freq")) continue;
    if (config.tied_embeddings && name == "lm_head.weight") continue;
    return error(ErrorCode::kUnsupported,
                 "{}: tensor '{}' has no place in this {} model ({} layers)", origin,
                 printable(name), family_name(config.family), config.layers);
  }
  return {};
}

}  // namespace atom
