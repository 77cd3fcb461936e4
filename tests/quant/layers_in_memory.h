// A quantized model that never becomes a file.
#pragma once

#include <optional>
#include <vector>

#include "model/model_testing.h"
#include "quant/quantizer.h"

namespace atom::testing {

class LayersInMemory final : public QuantizedModelSink {
 public:
  Status add_ends(const PackedLinear& embedding, const PackedLinear* head,
                  std::span<const float> norm) override {
    embedding_ = embedding;
    if (head != nullptr) head_ = *head;
    norm_.assign(norm.begin(), norm.end());
    return {};
  }
  Status add_layer(int64_t, const PackedLayer& layer) override {
    layers.push_back(layer);
    return {};
  }

  DecoderWeights load(Backend& backend, const ModelConfig& config, const KvFormat& kv,
                      int64_t prefix) const {
    DecoderWeights weights;
    weights.config = config;
    weights.kv = kv;
    weights.prefix_tokens = prefix;
    weights.final_norm = norm_;
    weights.embed = must(backend.load_linear(embedding_));
    weights.lm_head = head_ ? must(backend.load_linear(*head_)) : weights.embed;
    for (const PackedLayer& layer : layers) {
      weights.layers.push_back(must(load_layer(backend, layer)));
    }
    return weights;
  }

  std::vector<PackedLayer> layers;

 private:
  PackedLinear embedding_;
  std::optional<PackedLinear> head_;  // none: tied
  std::vector<float> norm_;
};

}  // namespace atom::testing
