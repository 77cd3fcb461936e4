// Runs decoder layers one at a time on a residual stream: the sequence of operators drawn in
// ops/backend.h, with the scratch memory it needs. The decoder calls it for every layer of a model;
// the quantizer calls it for one layer after another while it makes them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/weights.h"
#include "ops/backend.h"
#include "ops/batch.h"

namespace atom {

// The four places in a layer where linears take their input.
enum class InputSite : uint8_t { kQkv, kO, kGateUp, kDown };
inline constexpr int kInputSites = 4;

// Called when a site's input is ready and before its linear reads it: [tokens, K] in the site's
// permuted order. It may look at the input, or put another one in its place. In a mixture of
// experts the inputs of gate_up and down are routed rows, `tokens` of them (LayerRunner::routing).
using SiteHook = std::function<void(InputSite site, Activations& input, int64_t tokens)>;

class LayerRunner {
 public:
  // max_tokens: of a batch. positions: RoPE positions that batches may use, from 0 on. scratch: of
  // what one operator hands to the next: kHalf suits layers whose activations are quantized.
  static Result<std::unique_ptr<LayerRunner>> create(Backend& backend, const ModelConfig& config,
                                                     int64_t max_tokens, int64_t positions,
                                                     Precision scratch = Precision::kFull);

  // Makes room for what a layer's operators hand on; does nothing for formats it has seen. REQUIRED
  // before a layer of new formats is run.
  Status prepare(const LayerWeights& layer);

  // x += o_proj(attention(norm(x))) for the batch's tokens, x [>=T, D]; their keys and values go
  // into cache_layer of the cache.
  void attention(const LayerWeights& layer, int64_t cache_layer, const Batch& batch, KvCache& cache,
                 Tensor& x, const SiteHook& hook = {});
  // x += down_proj(silu(gate) * up) of norm(x), for the first `tokens` rows, or the weighted sum of
  // this over a token's experts. advance = false stops at down_proj's input and leaves x alone: for
  // those who only watch the sites.
  void mlp(const LayerWeights& layer, int64_t tokens, Tensor& x, const SiteHook& hook = {},
           bool advance = true);

  // What the last attention() projected: [>=T, (H + 2 KH) * DH], q heads, k heads, v heads, before
  // norms and RoPE.
  const Tensor& qkv() const { return *qkv_; }
  // Where the last mlp() of a mixture of experts sent its tokens. REQUIRED: a config with experts.
  const Routing& routing() const { return *routing_; }
  std::span<const float> cos_sin() const { return cos_sin_; }
  int64_t max_tokens() const { return max_tokens_; }
  int64_t positions() const { return positions_; }

 private:
  LayerRunner(Backend& backend, const ModelConfig& config, int64_t max_tokens, int64_t positions,
              Precision scratch);
  // Inputs that sites take turns with: one a format and width.
  using Inputs = std::vector<std::unique_ptr<Activations>>;
  static Activations* find_input(const Inputs& inputs, const LinearWeights& linear);
  static Activations& input_of(const Inputs& inputs, const LinearWeights& linear);
  Status add_input(const LinearWeights& linear, int64_t rows, Inputs& inputs);
  // What gate_up writes.
  Status add_inner(const LinearWeights& gate_up, int64_t rows);
  Tensor& inner_of(const LinearWeights& gate_up);
  void gate(const LinearWeights& gate_up, const Tensor& inner, int64_t rows, Activations& y);
  void normalize(const LayerWeights& layer, const Tensor& x, int64_t tokens,
                 std::span<const int32_t> perm, Activations& y);
  void mixture(const LayerWeights& layer, int64_t tokens, Tensor& x, const SiteHook& hook,
               bool advance);

  Backend& backend_;
  ModelConfig config_;
  int64_t max_tokens_;
  int64_t positions_;
  Precision scratch_;
  std::vector<float> cos_sin_;        // [positions, rotary_dim / 2, 2]
  std::unique_ptr<Tensor> qkv_;       // [max_tokens, (H + 2 KH) * DH]
  std::unique_ptr<Tensor> q_;         // [max_tokens, H * DH]
  std::unique_ptr<Tensor> attended_;  // [max_tokens, H * DH]
  std::unique_ptr<Tensor> gate_up_;   // [max_tokens * A, 2 F], where linears do not gate
  std::unique_ptr<Tensor> gated_;     // [max_tokens * A, F], where they do
  Inputs inputs_;                     // of max_tokens rows
  // Mixtures of experts alone:
  std::unique_ptr<Routing> routing_;
  std::unique_ptr<Tensor> scores_;         // [max_tokens, E]
  std::unique_ptr<Tensor> expert_output_;  // [max_tokens * A, D]
  Inputs routed_inputs_;                   // of max_tokens * A rows
};

}  // namespace atom
