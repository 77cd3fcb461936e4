// Microseconds of linears through the operator interface, for devices whose kernels are not
// measured one by one.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "backend/cuda/kernel_bench.h"
#include "ops/backend.h"

namespace atom::cli {

// Linears of every format that `groups` names ("w4a8", "w4a4", "w8a8", "w4a16") on random data,
// beside F16 weights with float activations ("f16"), the weights rotated past the caches. Medians
// of `samples` runs; roofs are left 0. Calls `each` for every figure; an error of its ends the run.
Status measure_linears(Backend& backend, const std::vector<std::string_view>& groups,
                       const std::vector<KernelSize>& sizes, int samples,
                       const std::function<Status(const KernelFigure&)>& each);

}  // namespace atom::cli
