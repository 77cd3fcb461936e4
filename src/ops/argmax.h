// The rule by which every backend, and the sampler, finds the largest of a row of logits.
#pragma once

#include <cstdint>
#include <span>

namespace atom {

// Where the largest element is: the first of equal ones, 0 where none is above minus infinity. A
// NaN is below every number.
int32_t argmax(std::span<const float> x);

}  // namespace atom
