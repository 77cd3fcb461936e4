// The vendor's GEMMs (cuBLASLt), each by the fastest of the algorithms its heuristic proposes.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/cuda/kernel_bench.h"

namespace atom::cuda::bench {

// Median microseconds of y [M, N] = x [M, K] w [N, K]^T on random data rotated past L2 in FP16,
// INT8 and FP8: those that the vendor has, none where its library is missing. y is F16, for INT8
// int32. Fails when GPU memory is short.
Result<std::vector<KernelBaseline>> vendor_gemms(const KernelSize& size, int samples);

}  // namespace atom::cuda::bench
