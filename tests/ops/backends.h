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
// False for what a backend refuses by design: CUDA has no caches with keys stored before RoPE.
bool supports(const Backend& backend, const KvFormat& format);
// True where attention rounds queries and softmax weights to F16, as CUDA's tensor core kernels do:
// a relative error of 2^-12 each, so that sums over other splits differ by as much.
bool attends_in_halves(const Backend& backend);
// True where the inputs of a format's linears are rounded to F16, those of F16 weights and, on
// Hopper, of 4-bit groups, which are rounded to F16 too: a relative error of 2^-12 each.
bool takes_halves(const Backend& backend, const LinearFormat& format);
// True where bytes in groups of 32 on both sides are multiplied as halves: on Hopper, for so many
// tokens. Each is rounded to F16 once, a relative error of 2^-11 at most.
bool multiplies_halves(const Backend& backend, const LinearFormat& format, int64_t tokens);

}  // namespace atom
