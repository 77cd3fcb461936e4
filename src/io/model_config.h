// The shape of a Llama-family decoder, dense or a mixture of experts, however its file spells it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace atom {

enum class ModelFamily : uint8_t { kLlama, kMistral, kQwen2, kQwen3, kMixtral };
const char* family_name(ModelFamily family);  // as Hugging Face's model_type: "llama"

enum class RopeScaling : uint8_t { kNone, kLinear, kLlama3, kYarn };

struct RopeConfig {
  double theta = 10000.0;
  int64_t rotary_dim = 0;  // channels of a head that rotate; the head dimension unless partial
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  int64_t original_context = 0;                          // llama3, yarn
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  double beta_fast = 32.0, beta_slow = 1.0;              // yarn
  double attention_factor = 0.0;                         // yarn; 0: 0.1 ln(factor) + 1
  std::vector<float> freq_factors;  // GGUF's rope_freqs tensor: divides each frequency; or empty

  bool operator==(const RopeConfig&) const = default;
};

// What readers take for a size at most; validate() has the tighter limits.
inline constexpr int64_t kMaxConfigSize = INT32_MAX;

struct ModelConfig {
  ModelFamily family = ModelFamily::kLlama;
  int64_t layers = 0;          // L
  int64_t hidden = 0;          // D
  int64_t ffn = 0;             // F, of each expert where there are experts
  int64_t heads = 0;           // H
  int64_t kv_heads = 0;        // KH
  int64_t head_dim = 0;        // DH
  int64_t vocab = 0;           // V
  int64_t context = 0;         // longest sequence the model was made for
  int64_t sliding_window = 0;  // tokens a query sees back; 0: all
  int64_t experts = 0;         // E feed-forward networks a layer behind a router; 0: one, dense
  int64_t active_experts = 0;  // of them, those that each token goes through
  double norm_eps = 1e-5;
  bool tied_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;  // llama's attention_bias puts one on o_proj too
  bool mlp_bias = false;
  bool qk_norm = false;
  RopeConfig rope;
  int32_t bos_id = -1;
  std::vector<int32_t> eos_ids;

  // Feed-forward networks a layer.
  int64_t mlps() const { return experts > 0 ? experts : 1; }

  bool operator==(const ModelConfig&) const = default;
};

// Checks ranges and that the parts fit each other; origin stands in front of the message.
Status validate(const ModelConfig& config, const std::string& origin);

}  // namespace atom
