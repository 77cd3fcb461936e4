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
// down_proj's input needs none: gate's and up's rows already have its order.
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

// One layer on the host. The linears of one site have the same format.
struct PackedLayer : LayerVectors {
  PackedLinear q, k, v;   // [H * DH, D], [KH * DH, D] twice
  PackedLinear o;         // [D, H * DH]
  PackedLinear gate, up;  // [F, D]
  PackedLinear down;      // [D, F]
};

// One layer in a backend's memory, the linears that share an input fused.
struct LayerWeights : LayerVectors {
  std::unique_ptr<const LinearWeights> qkv;      // [(H + 2 KH) * DH, D]
  std::unique_ptr<const LinearWeights> o;        // [D, H * DH]
  std::unique_ptr<const LinearWeights> gate_up;  // [2 F, D]
  std::unique_ptr<const LinearWeights> down;     // [D, F]
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

// Fuses a validated layer's linears and moves it into the backend's memory.
Result<LayerWeights> load_layer(Backend& backend, PackedLayer layer);

}  // namespace atom
