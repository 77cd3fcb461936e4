// Rotary position embedding: the angles by which pairs of channels of Q and K turn with their
// position, in the variants of published models, as transformers defines them.
#pragma once

#include <cstdint>
#include <vector>

#include "io/model_config.h"

namespace atom {

// Radians per position of each rotated pair, [rotary_dim / 2]: theta^(-2i / rotary_dim), then
// changed by the scaling, then divided by the freq_factors where the file has them.
std::vector<double> rope_frequencies(const RopeConfig& rope);

// What YaRN multiplies Q and K by to keep the attention's entropy at longer contexts; else 1.
double rope_attention_factor(const RopeConfig& rope);

// Cosine and sine, times the attention factor, of every position and pair:
// [positions, rotary_dim / 2, 2], computed in double.
std::vector<float> make_cos_sin(const RopeConfig& rope, int64_t positions);

}  // namespace atom
