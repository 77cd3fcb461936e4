// A decoder's weights: on the host, as model files and the quantizer hand them over, and in a
// backend's memory, as the decoder runs them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/model_config.h"
#include "ops/backend.h"
#include "tensor/formats.h"
#include "tensor/packed_linear.h"

namespace atom {

// The parts of a layer that are short vectors on the host for every backend. A permutation names
// the source channel of each column of its site's linears; empty stands for the identity.
// down_proj's input needs none: gate's and up's rows already have its order, in each expert its
// own.
struct LayerVectors {
  std::vector<float> attention_norm;      // [D]
  std::vector<float> mlp_norm;            // [D]
  std::vector<float> q_norm, k_norm;      // [DH], or empty
  std::vector<float> k_mean;              // [KH * DH], or empty
  std::vector<float> prefix_k, prefix_v;  // [prefix tokens, KH, DH], see KvCache::set_prefix
  std::vector<int32_t> qkv_perm;          // [D]
  std::vector<int32_t> o_perm;            // [H * DH]
  std::vector<int32_t> gate_up_perm;      // [D]
};

// A feed-forward network on the host.
struct PackedMlp {
  PackedLinear gate, up;  // [F, D]
  PackedLinear down;      // [D, F]
};

// One layer on the host. The linears of one site have the same format, in all experts.
struct PackedLayer : LayerVectors {
  PackedLinear q, k, v;         // [H * DH, D], [KH * DH, D] twice
  PackedLinear o;               // [D, H * DH]
  std::vector<PackedMlp> mlps;  // one; in a mixture of experts E
  std::vector<float> router;    // [E, D] over channels in their original order, or empty

  // In the order of layer_linears().
  std::vector<PackedLinear*> linears();
  std::vector<const PackedLinear*> linears() const;
};

// One layer in a backend's memory, the linears that share an input fused.
struct LayerWeights : LayerVectors {
  std::unique_ptr<const LinearWeights> qkv;  // [(H + 2 KH) * DH, D]
  std::unique_ptr<const LinearWeights> o;    // [D, H * DH]
  // One feed-forward network, or as many as there are experts.
  std::vector<std::unique_ptr<const LinearWeights>> gate_up;  // [2 F, D]
  std::vector<std::unique_ptr<const LinearWeights>> down;     // [D, F]
  std::unique_ptr<const LinearWeights> router;                // [E, D] in floats; null: dense
};

struct DecoderWeights {
  ModelConfig config;
  KvFormat kv;                                   // of the cache this model is run with
  int64_t prefix_tokens = 0;                     // constant tokens in front of every sequence
  std::shared_ptr<const LinearWeights> embed;    // [V, D]
  std::shared_ptr<const LinearWeights> lm_head;  // [V, D]; the same object where tied
  std::vector<float> final_norm;                 // [D]
  std::vector<LayerWeights> layers;

  // Of all linears, as the backend stores them.
  int64_t bytes() const;
};

// Checks that a layer fits the model: shapes, permutations, finite vectors, one format a site. The
// message starts with origin and the layer.
Status validate(const PackedLayer& layer, const ModelConfig& config, int64_t prefix_tokens,
                const std::string& origin, int64_t index);

// Fails where a backend cannot run such a model at all: to be asked before anything is loaded.
Status check_runnable(Backend& backend, const ModelConfig& config);

// Fuses a validated layer's linears and copies it into the backend's memory.
Result<LayerWeights> load_layer(Backend& backend, const PackedLayer& layer);

}  // namespace atom
