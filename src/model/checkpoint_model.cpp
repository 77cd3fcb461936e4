#include "model/checkpoint_model.h"

#include <array>
#include <numeric>
#include <type_traits>
#include <utility>

#include "base/interrupt.h"

namespace atom {
namespace {

// The parts of a layer by their names on disk; Layer is const where they are written.
template <class Perm>
struct NamedPerm {
  const char* name;
  Perm* perm;
  int64_t channels;
};
template <class Layer>
auto perms_of(Layer& layer, const ModelConfig& config) {
  using Named = NamedPerm<std::remove_reference_t<decltype((layer.qkv_perm))>>;
  return std::array<Named, 3>{{{"self_attn.qkv_perm", &layer.qkv_perm, config.hidden},
                               {"self_attn.o_perm", &layer.o_perm, config.heads * config.head_dim},
                               {"mlp.gate_up_perm", &layer.gate_up_perm, config.hidden}}};
}

template <class Values>
struct NamedFloats {
  std::string_view name;
  Values* values;
  std::vector<int64_t> shape;
  bool present;
};
template <class Layer>
auto floats_of(Layer& layer, const ModelConfig& config, bool centered, int64_t prefix) {
  using Named = NamedFloats<std::remove_reference_t<decltype((layer.k_mean))>>;
  const int64_t heads = config.kv_heads, dim = config.head_dim;
  return std::array<Named, 8>{
      {{"input_layernorm.weight", &layer.attention_norm, {config.hidden}, true},
       {"post_attention_layernorm.weight", &layer.mlp_norm, {config.hidden}, true},
       {"self_attn.q_norm.weight", &layer.q_norm, {dim}, config.qk_norm},
       {"self_attn.k_norm.weight", &layer.k_norm, {dim}, config.qk_norm},
       {kRouterTensor, &layer.router, {config.experts, config.hidden}, config.experts > 0},
       {"self_attn.k_mean", &layer.k_mean, {heads * dim}, centered},
       {"self_attn.prefix_k", &layer.prefix_k, {prefix, heads, dim}, prefix > 0},
       {"self_attn.prefix_v", &layer.prefix_v, {prefix, heads, dim}, prefix > 0}}};
}

std::vector<int32_t> identity(int64_t channels) {
  std::vector<int32_t> perm(static_cast<size_t>(channels));
  std::iota(perm.begin(), perm.end(), 0);
  return perm;
}

}  // namespace

Status write_checkpoint_layer(CheckpointWriter& writer, const ModelConfig& config, int64_t index,
                              const PackedLayer& layer) {
  const std::vector<LinearSpec> names = layer_linears(config, index);
  const std::vector<const PackedLinear*> linears = layer.linears();
  for (size_t i = 0; i < linears.size(); ++i) {
    ATOM_TRY(writer.add_linear(names[i].name, *linears[i]));
  }
  const int64_t prefix =
      static_cast<int64_t>(layer.prefix_k.size()) / (config.kv_heads * config.head_dim);
  for (const auto& part : floats_of(layer, config, !layer.k_mean.empty(), prefix)) {
    if (part.present) {
      ATOM_TRY(writer.add_floats(layer_tensor(index, part.name), part.shape, *part.values));
    }
  }
  for (const auto& part : perms_of(layer, config)) {
    ATOM_TRY(writer.add_perm(layer_tensor(index, part.name),
                             part.perm->empty() ? identity(part.channels) : *part.perm));
  }
  return {};
}

Result<PackedLayer> read_checkpoint_layer(const Checkpoint& checkpoint, int64_t index,
                                          PackedLayer room) {
  const CheckpointMeta& meta = checkpoint.meta();
  const auto prefix = static_cast<int64_t>(meta.prefix_tokens.size());
  PackedLayer layer = std::move(room);
  layer.mlps.resize(static_cast<size_t>(meta.config.mlps()));
  const std::vector<LinearSpec> names = layer_linears(meta.config, index);
  const std::vector<PackedLinear*> linears = layer.linears();
  for (size_t i = 0; i < linears.size(); ++i) {
    *linears[i] = ATOM_TRY(checkpoint.linear(names[i].name, std::move(*linears[i])));
  }
  for (const auto& part : floats_of(layer, meta.config, meta.kv.centered, prefix)) {
    part.values->clear();
    if (part.present) *part.values = ATOM_TRY(checkpoint.floats(layer_tensor(index, part.name)));
  }
  for (const auto& part : perms_of(layer, meta.config)) {
    *part.perm = ATOM_TRY(checkpoint.perm(layer_tensor(index, part.name)));
    if (*part.perm == identity(part.channels)) part.perm->clear();
  }
  ATOM_TRY(validate(layer, meta.config, prefix, checkpoint.origin(), index));
  return layer;
}

Result<DecoderWeights> load_checkpoint_model(Backend& backend, const Checkpoint& checkpoint) {
  const CheckpointMeta& meta = checkpoint.meta();
  ATOM_TRY(check_runnable(backend, meta.config).with_context(checkpoint.origin()));
  DecoderWeights weights;
  weights.config = meta.config;
  weights.kv = meta.kv;
  weights.prefix_tokens = static_cast<int64_t>(meta.prefix_tokens.size());
  weights.final_norm = ATOM_TRY(checkpoint.floats(kLastNormTensor));
  {
    PackedLinear linear = ATOM_TRY(checkpoint.linear(kEmbedTensor));
    weights.embed = ATOM_TRY(backend.load_linear(linear));
    weights.lm_head = weights.embed;
    if (!meta.config.tied_embeddings) {
      linear = ATOM_TRY(checkpoint.linear(kHeadTensor, std::move(linear)));
      weights.lm_head = ATOM_TRY(backend.load_linear(linear));
    }
  }
  PackedLayer layer;
  for (int64_t i = 0; i < meta.config.layers; ++i) {
    ATOM_TRY(check_interrupted());
    layer = ATOM_TRY(read_checkpoint_layer(checkpoint, i, std::move(layer)));
    weights.layers.push_back(ATOM_TRY(load_layer(backend, layer)));
  }
  return weights;
}

}  // namespace atom
