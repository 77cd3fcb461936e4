// Models of published shapes with random weights: for measuring speed without the weights.
#pragma once

#include <string_view>

#include "base/status.h"
#include "model/weights.h"
#include "ops/backend.h"

namespace atom {

// "llama-2-7b", "llama-2-70b" or "mixtral-8x7b", in the formats of recipe w4a8, every layer and
// expert with memory of its own. layers: how many of them; 0: all. What it generates means nothing.
// Fails on other names and on more layers than there are.
Result<DecoderWeights> make_synthetic_model(Backend& backend, std::string_view shape,
                                            int64_t layers = 0);

}  // namespace atom
