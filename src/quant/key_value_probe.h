// Keys and values of a float layer on the host, where the quantizer learns the constant mean of the
// rotated keys and the exact cache entries of the prefix.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/model_config.h"
#include "model/weights.h"

namespace atom {

// Projected keys [T, KH, DH] of a layer get their q/k norm and, if asked for, RoPE. cos_sin: as in
// RopeAppendArgs, its first row being the position of the first token.
void finish_keys(std::span<float> keys, const LayerVectors& layer, const ModelConfig& config,
                 std::span<const float> cos_sin, bool rope);

// sums[i] += channel i of all tokens' keys [T, KH * DH].
void add_keys(std::span<const float> keys, std::span<double> sums);

// Brings keys into the form that a cache of this format holds: minus the mean, rotated.
void to_cache_form(std::span<float> k, const ModelConfig& config, const KvFormat& format,
                   std::span<const float> k_mean);

}  // namespace atom
