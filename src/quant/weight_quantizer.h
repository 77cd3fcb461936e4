// Turns the float weights of one linear into packed codes: round to nearest, or GPTQ (Frantar et
// al. 2022), on the grids of tensor/formats.h.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "ops/device_quantizer.h"
#include "tensor/packed_linear.h"

namespace atom {

// What GPTQ needs of H = X^T X, computed once for all linears that share an input site.
struct GptqFactor {
  int64_t size = 0;             // K
  std::vector<float> upper;     // [K, K] row-major, U with inverse(H + damp I) = U^T U
  std::vector<float> diagonal;  // [K] of H + damp I: the weights of a scale search
};

// Adds damping * mean(diag H) to the diagonal and factors in double. Channels that were never
// active (H_kk = 0) get H_kk = 1. hessian: [K, K], symmetric. Fails (kInvalidArgument) if it is not
// positive definite or not finite.
Result<GptqFactor> factor_hessian(std::span<const float> hessian, int64_t size, double damping);

// Quantizes weights [rows, cols], whose columns stand in permuted order (outliers last).
// factor: GPTQ with its error feedback, column by column in ascending order, the error of the body
// reaching the outlier columns before these are rounded; nullptr: round to nearest.
// importance: [cols] weights of a scale search without a factor, or empty for ones.
PackedLinear quantize_weights(std::span<const float> weights, int64_t rows, int64_t cols,
                              const WeightQuantSpec& spec, const GptqFactor* factor,
                              std::span<const float> importance = {});

}  // namespace atom
