// The reference backend: obvious loops in double over dequantized operands. Slow, never clever, and
// the truth that every other backend is tested against. Codes come from ops/numerics.h like
// everywhere; all that follows them is computed in double and rounded to float once, when stored.
#pragma once

#include <memory>

#include "ops/backend.h"

namespace atom {

std::unique_ptr<Backend> make_ref_backend();

}  // namespace atom
