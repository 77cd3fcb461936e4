// The backends that the op suite runs: each case on every one of them, measured against ref.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/backend.h"

namespace atom {

// The measure. Cases with closed-form expectations check it like any other backend.
Backend& ref_backend();
// All that this machine can run, ref first.
const std::vector<Backend*>& all_backends();
// All but ref.
std::vector<Backend*> other_backends();

}  // namespace atom
