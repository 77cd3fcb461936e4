// Linears with random weights, for measuring speed.
#pragma once

#include "base/random.h"
#include "base/status.h"
#include "tensor/packed_linear.h"

namespace atom {

// Every code over its whole range; weights of about 0.01, which keeps a residual finite over many
// layers. Fails where the format does not fit `cols` channels.
Result<PackedLinear> random_linear(const LinearFormat& format, int64_t rows, int64_t cols,
                                   Random& random);

}  // namespace atom
