// Models of published shapes with random weights: for measuring speed without the weights.
#pragma once

#include <string_view>

#include "base/status.h"
#include "model/weights.h"
#include "ops/backend.h"

namespace atom {

// "llama-2-7b", "llama-2-70b", in the formats of recipe w4a8, every layer with memory of its own.
// What it generates means nothing. Fails on other names.
Result<DecoderWeights> make_synthetic_model(Backend& backend, std::string_view shape);

}  // namespace atom
