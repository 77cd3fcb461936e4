#include "model/layer_runner.h"

#include <cmath>

#include "model/rope.h"

namespace atom {

LayerRunner::LayerRunner(Backend& backend, const ModelConfig& config, int64_t max_tokens,
                         int64_t positions, Precision scratch)
    : backend_(backend),
      config_(config),
      max_tokens_(max_tokens),
      positions_(positions),
      scratch_(scratch) {}

Result<std::unique_ptr<LayerRunner>> LayerRunner::create(Backend& backend,
                                                         const ModelConfig& config,
                                                         int64_t max_tokens, int64_t positions,
                                                         Precision scratch) {
  ATOM_CHECK(max_tokens > 0 && positions > 0, "a runner needs room for a token");
  std::unique_ptr<LayerRunner> runner(
      new LayerRunner(backend, config, max_tokens, positions, scratch));
  const int64_t q_cols = config.heads * config.head_dim;
  const int64_t qkv_cols = q_cols + 2 * config.kv_heads * config.head_dim;
  runner->cos_sin_ = make_cos_sin(config.rope, positions);
  runner->qkv_ = ATOM_TRY(backend.make_tensor(max_tokens, qkv_cols, scratch));
  runner->q_ = ATOM_TRY(backend.make_tensor(max_tokens, q_cols));
  runner->attended_ = ATOM_TRY(backend.make_tensor(max_tokens, q_cols));
  if (config.experts == 0) return runner;
  const int64_t rows = max_tokens * config.active_experts;
  runner->routing_ =
      ATOM_TRY(backend.make_routing(config.experts, config.active_experts, max_tokens));
  runner->scores_ = ATOM_TRY(backend.make_tensor(max_tokens, config.experts));
  runner->expert_output_ = ATOM_TRY(backend.make_tensor(rows, config.hidden));
  return runner;
}

Status LayerRunner::prepare(const LayerWeights& layer) {
  const bool dense = layer.router == nullptr;
  const int64_t rows = dense ? max_tokens_ : max_tokens_ * config_.active_experts;
  ATOM_TRY(add_inner(*layer.gate_up[0], rows));
  ATOM_TRY(add_input(*layer.qkv, max_tokens_, inputs_));
  ATOM_TRY(add_input(*layer.o, max_tokens_, inputs_));
  ATOM_TRY(add_input(*layer.gate_up[0], max_tokens_, inputs_));
  if (dense) return add_input(*layer.down[0], max_tokens_, inputs_);
  ATOM_TRY(add_input(*layer.router, max_tokens_, inputs_));
  ATOM_TRY(add_input(*layer.gate_up[0], rows, routed_inputs_));
  return add_input(*layer.down[0], rows, routed_inputs_);
}

void LayerRunner::attention(const LayerWeights& layer, int64_t cache_layer, const Batch& batch,
                            KvCache& cache, Tensor& x, const SiteHook& hook) {
  const int64_t tokens = batch.size();
  const auto norm_eps = static_cast<float>(config_.norm_eps);

  Activations& normed = input_of(inputs_, *layer.qkv);
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

  Activations& attended = input_of(inputs_, *layer.o);
  backend_.quantize(*attended_, tokens, layer.o_perm, attended);
  if (hook) hook(InputSite::kO, attended, tokens);
  backend_.linear(
      {.x = &attended, .w = layer.o.get(), .y = &x, .tokens = tokens, .accumulate = true});
}

void LayerRunner::normalize(const LayerWeights& layer, const Tensor& x, int64_t tokens,
                            std::span<const int32_t> perm, Activations& y) {
  backend_.rmsnorm_quantize({.x = &x,
                             .weight = layer.mlp_norm,
                             .eps = static_cast<float>(config_.norm_eps),
                             .tokens = tokens},
                            perm, y);
}

Tensor& LayerRunner::inner_of(const LinearWeights& gate_up) {
  return gate_up.gated() ? *gated_ : *gate_up_;
}

// down_proj's input of what gate_up made.
void LayerRunner::gate(const LinearWeights& gate_up, const Tensor& inner, int64_t rows,
                       Activations& y) {
  if (gate_up.gated()) return backend_.quantize(inner, rows, {}, y);
  backend_.silu_mul_quantize({.gate_up = &inner, .tokens = rows}, y);
}

void LayerRunner::mlp(const LayerWeights& layer, int64_t tokens, Tensor& x, const SiteHook& hook,
                      bool advance) {
  if (layer.router != nullptr) return mixture(layer, tokens, x, hook, advance);
  const LinearWeights& gate_up = *layer.gate_up[0];
  const LinearWeights& down = *layer.down[0];
  Activations& normed = input_of(inputs_, gate_up);
  normalize(layer, x, tokens, layer.gate_up_perm, normed);
  if (hook) hook(InputSite::kGateUp, normed, tokens);
  Tensor& inner = inner_of(gate_up);
  backend_.linear({.x = &normed, .w = &gate_up, .y = &inner, .tokens = tokens});

  Activations& gated = input_of(inputs_, down);
  gate(gate_up, inner, tokens, gated);
  if (hook) hook(InputSite::kDown, gated, tokens);
  if (!advance) return;
  backend_.linear({.x = &gated, .w = &down, .y = &x, .tokens = tokens, .accumulate = true});
}

// The router reads what the norm gives before it is rounded, so the norm runs a second time for it.
void LayerRunner::mixture(const LayerWeights& layer, int64_t tokens, Tensor& x,
                          const SiteHook& hook, bool advance) {
  const int64_t rows = tokens * routing_->active();
  Activations& exact = input_of(inputs_, *layer.router);
  normalize(layer, x, tokens, {}, exact);
  backend_.linear({.x = &exact, .w = layer.router.get(), .y = scores_.get(), .tokens = tokens});
  backend_.route(*scores_, tokens, *routing_);

  const LinearWeights& gate_up = *layer.gate_up[0];
  Activations& normed = input_of(inputs_, gate_up);
  normalize(layer, x, tokens, layer.gate_up_perm, normed);
  Activations& routed = input_of(routed_inputs_, gate_up);
  backend_.gather_routed(normed, *routing_, tokens, routed);
  if (hook) hook(InputSite::kGateUp, routed, rows);
  Tensor& inner = inner_of(gate_up);
  backend_.grouped_linear(
      {.x = &routed, .w = layer.gate_up, .routing = routing_.get(), .y = &inner, .tokens = tokens});

  Activations& gated = input_of(routed_inputs_, *layer.down[0]);
  gate(gate_up, inner, rows, gated);
  if (hook) hook(InputSite::kDown, gated, rows);
  if (!advance) return;
  backend_.grouped_linear({.x = &gated,
                           .w = layer.down,
                           .routing = routing_.get(),
                           .y = expert_output_.get(),
                           .tokens = tokens});
  backend_.combine(*expert_output_, *routing_, tokens, x);
}

Activations* LayerRunner::find_input(const Inputs& inputs, const LinearWeights& linear) {
  for (const auto& input : inputs) {
    if (input->format() == linear.format() && input->channels() == linear.cols()) {
      return input.get();
    }
  }
  return nullptr;
}

Activations& LayerRunner::input_of(const Inputs& inputs, const LinearWeights& linear) {
  Activations* input = find_input(inputs, linear);
  ATOM_CHECK(input != nullptr, "prepare() was not called for this layer's formats");
  return *input;
}

Status LayerRunner::add_input(const LinearWeights& linear, int64_t rows, Inputs& inputs) {
  if (find_input(inputs, linear) != nullptr) return {};
  inputs.push_back(ATOM_TRY(backend_.make_activations(linear.format(), linear.cols(), rows)));
  return {};
}

Status LayerRunner::add_inner(const LinearWeights& gate_up, int64_t rows) {
  std::unique_ptr<Tensor>& inner = gate_up.gated() ? gated_ : gate_up_;
  if (inner != nullptr) return {};
  inner = ATOM_TRY(gate_up.gated() ? backend_.make_tensor(rows, config_.ffn, Precision::kHalf)
                                   : backend_.make_tensor(rows, 2 * config_.ffn, scratch_));
  return {};
}

}  // namespace atom
