// Changes of basis that leave a float layer's function as it is and make it easier to quantize.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "io/model_config.h"
#include "model/weights.h"

namespace atom {

// Rotates every V head by the Hadamard matrix and o_proj's columns by its inverse, so that V's
// channels share their range when a head is quantized under one scale. The layer computes the same.
void fold_value_hadamard(PackedLayer& layer, const ModelConfig& config);

// How far each channel of an input is to be divided, and the columns of the linears that read it
// multiplied, so that activations and weights share a channel's range: (E_x / E_w)^(strength / 4),
// divided by the geometric mean of these. E_x: energy[k], the squares of the channel's activations;
// E_w: the squares of its weights in all of `linears`. strength 1 makes both vary alike from
// channel to channel, 0 leaves all as it is. Channels without activations or weights keep 1.
std::vector<float> balance_factors(std::span<const float> energy,
                                   std::span<const PackedLinear* const> linears, double strength);

void multiply_columns(PackedLinear& linear, std::span<const float> factors);
// Divides the rows (and bias) of a float linear.
void divide_rows(PackedLinear& linear, std::span<const float> factors);

// The columns of a float linear in a new order: column i of the result is column perm[i].
void permute_columns(PackedLinear& linear, std::span<const int32_t> perm);
// The rows (and bias) of a float linear in a new order: row i of the result is row perm[i].
void permute_rows(PackedLinear& linear, std::span<const int32_t> perm);

// Channels by ascending salience, equals in channel order: outliers come last.
std::vector<int32_t> order_by_salience(std::span<const float> salience);

// m[i][j] := m[perm[i]][perm[j]] for a square matrix [n, n].
std::vector<float> permute_square(std::span<const float> m, std::span<const int32_t> perm);

}  // namespace atom
