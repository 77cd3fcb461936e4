// Hugging Face's config.json <-> ModelConfig.
#pragma once

#include <string>

#include "base/json.h"
#include "io/model_config.h"

namespace atom {

// Reads a config.json of a llama, mistral, qwen2, qwen3 or mixtral model, with the defaults and the
// meaning that transformers gives its fields. Everything that would change the computation and that
// we do not do (other architectures, other mixtures of experts, other activations, windows that
// differ between layers) is refused. The result is validated.
Result<ModelConfig> parse_hf_config(const Json& document, const std::string& origin);

// Adds the end-of-sequence tokens that a generation_config.json names.
Status add_generation_config(const Json& document, const std::string& origin, ModelConfig& config);

// A config.json from which parse_hf_config makes the same configuration again. What Hugging Face
// has no field for (GGUF's frequency factors, biases that its class would not have) goes into a
// member "atom_model".
Json hf_config_json(const ModelConfig& config);

}  // namespace atom
