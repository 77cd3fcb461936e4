#include "model/layer_runner.h"

#include <cmath>

#include "model/rope.h"

namespace atom {

LayerRunner::LayerRunner(Backend& backend, const ModelConfig& config, int64_t max_tokens,
                         int64_t positions)
    : backend_(backend), config_(config), max_tokens_(max_tokens), positions_(positions) {}

Result<std::unique_ptr<LayerRunner>> LayerRunner::create(Backend& backend,
                                                         const ModelConfig& config,
                                                         int64_t max_tokens, int64_t positions,
                                                         Precision scratch) {
  ATOM_CHECK(max_tokens > 0 && positions > 0, "a runner needs room for a token");
  std::unique_ptr<LayerRunner> runner(new LayerRunner(backend, config, max_tokens, positions));
  const int64_t q_cols = config.heads * config.head_dim;
  const int64_t qkv_cols = q_cols + 2 * config.kv_heads * config.head_dim;
  runner->cos_sin_ = make_cos_sin(config.rope, positions);
  runner->qkv_ = ATOM_TRY(backend.make_tensor(max_tokens, qkv_cols, scratch));
  runner->q_ = ATOM_TRY(backend.make_tensor(max_tokens, q_cols));
  runner->attended_ = ATOM_TRY(backend.make_tensor(max_tokens, q_cols));
  runner->gate_up_ = ATOM_TRY(backend.make_tensor(max_tokens, 2 * config.ffn, scratch));
  return runner;
}

Status LayerRunner::prepare(const LayerWeights& layer) {
  for (const LinearWeights* linear :
       {layer.qkv.get(), layer.o.get(), layer.gate_up.get(), layer.down.get()}) {
    if (find_input(*linear) != nullptr) continue;
    inputs_.push_back(
        ATOM_TRY(backend_.make_activations(linear->format(), linear->cols(), max_tokens_)));
  }
  return {};
}

void LayerRunner::attention(const LayerWeights& layer, int64_t cache_layer, const Batch& batch,
                            KvCache& cache, Tensor& x, const SiteHook& hook) {
  const int64_t tokens = batch.size();
  const auto norm_eps = static_cast<float>(config_.norm_eps);

  Activations& normed = input_of(*layer.qkv);
  backend_.rmsnorm_quantize(
      {.x = &x, .weight = layer.attention_norm, .eps = norm_eps, .tokens = tokens}, layer.qkv_perm,
      normed);
  if (hook) hook(InputSite::kQkv, normed, tokens);
  backend_.linear({.x = &normed, .w = layer.qkv.get(), .y = qkv_.get(), .tokens = tokens});

  backend_.rope_append_kv({.layer = cache_layer,
                           .batch = &batch,
                           .qkv = qkv_.get(),
                           .q = q_.get(),
                           .heads = config_.heads,
                           .cos_sin = cos_sin_,
                           .rotary_dim = config_.rope.rotary_dim,
                           .q_norm = layer.q_norm,
                           .k_norm = layer.k_norm,
                           .norm_eps = norm_eps,
                           .k_mean = layer.k_mean,
                           .cache = &cache});
  backend_.paged_attention(
      {.layer = cache_layer,
       .batch = &batch,
       .q = q_.get(),
       .out = attended_.get(),
       .heads = config_.heads,
       .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_dim))),
       .window = config_.sliding_window,
       .cos_sin = cos_sin_,
       .rotary_dim = config_.rope.rotary_dim,
       .cache = &cache});

  Activations& attended = input_of(*layer.o);
  backend_.quantize(*attended_, tokens, layer.o_perm, attended);
  if (hook) hook(InputSite::kO, attended, tokens);
  backend_.linear(
      {.x = &attended, .w = layer.o.get(), .y = &x, .tokens = tokens, .accumulate = true});
}

void LayerRunner::mlp(const LayerWeights& layer, int64_t tokens, Tensor& x, const SiteHook& hook,
                      bool advance) {
  Activations& normed = input_of(*layer.gate_up);
  backend_.rmsnorm_quantize({.x = &x,
                             .weight = layer.mlp_norm,
                             .eps = static_cast<float>(config_.norm_eps),
                             .tokens = tokens},
                            layer.gate_up_perm, normed);
  if (hook) hook(InputSite::kGateUp, normed, tokens);
  backend_.linear({.x = &normed, .w = layer.gate_up.get(), .y = gate_up_.get(), .tokens = tokens});

  Activations& gated = input_of(*layer.down);
  backend_.silu_mul_quantize({.gate_up = gate_up_.get(), .tokens = tokens}, gated);
  if (hook) hook(InputSite::kDown, gated, tokens);
  if (!advance) return;
  backend_.linear(
      {.x = &gated, .w = layer.down.get(), .y = &x, .tokens = tokens, .accumulate = true});
}

Activations* LayerRunner::find_input(const LinearWeights& linear) {
  for (const auto& input : inputs_) {
    if (input->format() == linear.format() && input->channels() == linear.cols()) {
      return input.get();
    }
  }
  return nullptr;
}

Activations& LayerRunner::input_of(const LinearWeights& linear) {
  Activations* input = find_input(linear);
  ATOM_CHECK(input != nullptr, "prepare() was not called for this layer's formats");
  return *input;
}

}  // namespace atom
