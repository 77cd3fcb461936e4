// Keys and values of a float layer on the host, where the quantizer learns the constant mean of the
// rotated keys and the exact cache entries of the prefix.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/model_config.h"
#include "model/weights.h"

namespace atom {

struct KeysAndValues {
  std::vector<float> k;  // [T, KH, DH] after q/k norm and, if asked for, RoPE
  std::vector<float> v;  // [T, KH, DH]
};

// x: [T, D] normalised inputs of the layer's qkv site in original channel order; cos_sin as in
// RopeAppendArgs, its first row being the position of x's first row.
KeysAndValues project_keys_and_values(const PackedLayer& layer, const ModelConfig& config,
                                      std::span<const float> x, int64_t tokens,
                                      std::span<const float> cos_sin, bool rope, bool values);

// Brings keys into the form that a cache of this format holds: minus the mean, rotated.
void to_cache_form(std::span<float> k, const ModelConfig& config, const KvFormat& format,
                   std::span<const float> k_mean);

}  // namespace atom
