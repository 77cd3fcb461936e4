// What a checkpoint consists of, for its writer and its reader.
#include "io/checkpoint.h"

namespace atom {

std::vector<LinearSpec> checkpoint_linears(const ModelConfig& config) {
  std::vector<LinearSpec> linears = {
      {std::string(kEmbedTensor), config.vocab, config.hidden, false}};
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    for (LinearSpec& linear : layer_linears(config, layer)) linears.push_back(std::move(linear));
  }
  if (!config.tied_embeddings) {
    linears.push_back({std::string(kHeadTensor), config.vocab, config.hidden, false});
  }
  return linears;
}

std::vector<TensorSpec> checkpoint_floats(const CheckpointMeta& meta) {
  const ModelConfig& config = meta.config;
  const auto prefix = static_cast<int64_t>(meta.prefix_tokens.size());
  std::vector<TensorSpec> tensors;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    for (TensorSpec& floats : layer_floats(config, layer)) tensors.push_back(std::move(floats));
    if (meta.kv.centered) {
      tensors.push_back(
          {layer_tensor(layer, "self_attn.k_mean"), {config.kv_heads * config.head_dim}});
    }
    if (prefix == 0) continue;
    for (const char* name : {"self_attn.prefix_k", "self_attn.prefix_v"}) {
      tensors.push_back({layer_tensor(layer, name), {prefix, config.kv_heads, config.head_dim}});
    }
  }
  tensors.push_back({std::string(kLastNormTensor), {config.hidden}});
  return tensors;
}

std::vector<TensorSpec> checkpoint_perms(const ModelConfig& config) {
  std::vector<TensorSpec> perms;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    perms.push_back({layer_tensor(layer, "self_attn.qkv_perm"), {config.hidden}});
    perms.push_back({layer_tensor(layer, "self_attn.o_perm"), {config.heads * config.head_dim}});
    perms.push_back({layer_tensor(layer, "mlp.gate_up_perm"), {config.hidden}});
  }
  return perms;
}

}  // namespace atom
