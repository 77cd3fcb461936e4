#include "model/weights.h"

#include <cmath>
#include <utility>

namespace atom {
namespace {

Status check_vector(const std::vector<float>& values, int64_t wanted, const char* name) {
  if (static_cast<int64_t>(values.size()) != wanted) {
    return error(ErrorCode::kCorrupt, "{}: {} elements, expected {}", name, values.size(), wanted);
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) return error(ErrorCode::kCorrupt, "{}[{}]: not finite", name, i);
  }
  return {};
}

Status check_permutation(const std::vector<int32_t>& perm, int64_t channels, const char* name) {
  if (perm.empty()) return {};
  if (static_cast<int64_t>(perm.size()) != channels) {
    return error(ErrorCode::kCorrupt, "{}: {} elements, expected {}", name, perm.size(), channels);
  }
  std::vector<bool> seen(perm.size());
  for (size_t i = 0; i < perm.size(); ++i) {
    const int32_t source = perm[i];
    if (source < 0 || source >= channels) {
      return error(ErrorCode::kCorrupt, "{}[{}]: {} is not a channel", name, i, source);
    }
    if (seen[static_cast<size_t>(source)]) {
      return error(ErrorCode::kCorrupt, "{}[{}]: channel {} occurs twice", name, i, source);
    }
    seen[static_cast<size_t>(source)] = true;
  }
  return {};
}

Status check_linear(const PackedLinear& linear, int64_t rows, int64_t cols,
                    const std::string& name) {
  if (linear.rows != rows || linear.cols != cols) {
    return error(ErrorCode::kCorrupt, "{}: shape [{}, {}], expected [{}, {}]", name, linear.rows,
                 linear.cols, rows, cols);
  }
  return validate(linear).with_context(name);
}

Status check_format(const PackedLinear& first, const PackedLinear& other, const std::string& name) {
  if (other.format == first.format) return {};
  return error(ErrorCode::kUnsupported, "{}: format {} differs from its site's, {}", name,
               describe(other.format), describe(first.format));
}

// What Backend::load_fused takes for granted.
Status check_fusible(const PackedLinear& first, const PackedLinear& other,
                     const std::string& name) {
  ATOM_TRY(check_format(first, other, name));
  if (other.bias.empty() != first.bias.empty()) {
    return error(ErrorCode::kUnsupported, "{}: a site's linears must all have a bias or none",
                 name);
  }
  return {};
}

Status check_mlps(const PackedLayer& layer, const ModelConfig& c) {
  ATOM_TRY(check_vector(layer.router, c.experts * c.hidden, "router"));
  if (static_cast<int64_t>(layer.mlps.size()) != c.mlps()) {
    return error(ErrorCode::kCorrupt, "{} feed-forward networks, expected {}", layer.mlps.size(),
                 c.mlps());
  }
  for (size_t e = 0; e < layer.mlps.size(); ++e) {
    const PackedMlp& mlp = layer.mlps[e];
    const std::string prefix = c.experts > 0 ? fmt::format("expert {}: ", e) : std::string();
    ATOM_TRY(check_linear(mlp.gate, c.ffn, c.hidden, prefix + "gate_proj"));
    ATOM_TRY(check_linear(mlp.up, c.ffn, c.hidden, prefix + "up_proj"));
    ATOM_TRY(check_linear(mlp.down, c.hidden, c.ffn, prefix + "down_proj"));
    ATOM_TRY(check_fusible(mlp.gate, mlp.up, prefix + "up_proj"));
    ATOM_TRY(check_format(layer.mlps[0].gate, mlp.gate, prefix + "gate_proj"));
    ATOM_TRY(check_format(layer.mlps[0].down, mlp.down, prefix + "down_proj"));
  }
  return {};
}

Status check_layer(const PackedLayer& layer, const ModelConfig& c, int64_t prefix_tokens) {
  const int64_t q_rows = c.heads * c.head_dim, kv_rows = c.kv_heads * c.head_dim;
  ATOM_TRY(check_vector(layer.attention_norm, c.hidden, "input_layernorm"));
  ATOM_TRY(check_vector(layer.mlp_norm, c.hidden, "post_attention_layernorm"));
  ATOM_TRY(check_vector(layer.q_norm, c.qk_norm ? c.head_dim : 0, "q_norm"));
  ATOM_TRY(check_vector(layer.k_norm, c.qk_norm ? c.head_dim : 0, "k_norm"));
  ATOM_TRY(check_vector(layer.k_mean, layer.k_mean.empty() ? 0 : kv_rows, "k_mean"));
  ATOM_TRY(check_vector(layer.prefix_k, prefix_tokens * kv_rows, "prefix_k"));
  ATOM_TRY(check_vector(layer.prefix_v, prefix_tokens * kv_rows, "prefix_v"));
  ATOM_TRY(check_permutation(layer.qkv_perm, c.hidden, "qkv_perm"));
  ATOM_TRY(check_permutation(layer.o_perm, q_rows, "o_perm"));
  ATOM_TRY(check_permutation(layer.gate_up_perm, c.hidden, "gate_up_perm"));
  ATOM_TRY(check_linear(layer.q, q_rows, c.hidden, "q_proj"));
  ATOM_TRY(check_linear(layer.k, kv_rows, c.hidden, "k_proj"));
  ATOM_TRY(check_linear(layer.v, kv_rows, c.hidden, "v_proj"));
  ATOM_TRY(check_linear(layer.o, c.hidden, q_rows, "o_proj"));
  ATOM_TRY(check_fusible(layer.q, layer.k, "k_proj"));
  ATOM_TRY(check_fusible(layer.q, layer.v, "v_proj"));
  return check_mlps(layer, c);
}

template <class Layer>
auto linears_of(Layer& layer) {
  std::vector linears = {&layer.q, &layer.k, &layer.v, &layer.o};
  for (auto& mlp : layer.mlps) {
    for (auto* linear : {&mlp.gate, &mlp.up, &mlp.down}) linears.push_back(linear);
  }
  return linears;
}

}  // namespace

std::vector<PackedLinear*> PackedLayer::linears() { return linears_of(*this); }
std::vector<const PackedLinear*> PackedLayer::linears() const { return linears_of(*this); }

int64_t DecoderWeights::bytes() const {
  int64_t total = embed->bytes() + (lm_head == embed ? 0 : lm_head->bytes());
  for (const LayerWeights& layer : layers) {
    total += layer.qkv->bytes() + layer.o->bytes();
    for (const auto& linear : layer.gate_up) total += linear->bytes();
    for (const auto& linear : layer.down) total += linear->bytes();
    if (layer.router) total += layer.router->bytes();
  }
  return total;
}

Status validate(const PackedLayer& layer, const ModelConfig& config, int64_t prefix_tokens,
                const std::string& origin, int64_t index) {
  return check_layer(layer, config, prefix_tokens)
      .with_context(fmt::format("{}: layer {}", origin, index));
}

Status check_runnable(Backend& backend, const ModelConfig& config) {
  if (config.experts == 0) return {};
  return backend.make_routing(config.experts, config.active_experts, 1).status();
}

Result<LayerWeights> load_layer(Backend& backend, const PackedLayer& layer) {
  LayerWeights loaded;
  const PackedLinear* qkv[] = {&layer.q, &layer.k, &layer.v};
  loaded.qkv = ATOM_TRY(backend.load_fused(qkv));
  loaded.o = ATOM_TRY(backend.load_linear(layer.o));
  for (const PackedMlp& mlp : layer.mlps) {
    loaded.gate_up.push_back(ATOM_TRY(backend.load_gate_up(mlp.gate, mlp.up)));
    loaded.down.push_back(ATOM_TRY(backend.load_linear(mlp.down)));
  }
  if (!layer.router.empty()) {
    const auto hidden = static_cast<int64_t>(layer.mlp_norm.size());
    const auto experts = static_cast<int64_t>(layer.mlps.size());
    loaded.router = ATOM_TRY(backend.load_linear(make_float_linear(layer.router, experts, hidden)));
  }
  static_cast<LayerVectors&>(loaded) = layer;
  return loaded;
}

}  // namespace atom
