// Models of published shapes with random weights: for measuring speed without the weights.
#pragma once

#include <functional>
#include <string_view>

#include "base/status.h"
#include "model/layer_runner.h"
#include "model/weights.h"
#include "ops/backend.h"

namespace atom {

// The config of "llama-2-7b", "llama-2-70b" or "mixtral-8x7b" with so many layers (0: all). Fails
// on other names and on more layers than there are.
Result<ModelConfig> synthetic_config(std::string_view shape, int64_t layers);

// The formats of a synthetic model, as a recipe has them.
struct SyntheticFormats {
  // Of the linears of a site with so many input channels.
  std::function<Result<LinearFormat>(InputSite site, int64_t layer, int64_t channels)> linear;
  LinearFormat embedding;  // and lm_head
  KvFormat kv;
};

// "llama-2-7b", "llama-2-70b" or "mixtral-8x7b", every layer and expert with memory of its own.
// layers: how many of them; 0: all. What it generates means nothing. Fails on other names, on more
// layers than there are and where a format does not fit.
Result<DecoderWeights> make_synthetic_model(Backend& backend, std::string_view shape,
                                            const SyntheticFormats& formats, int64_t layers = 0);

}  // namespace atom
