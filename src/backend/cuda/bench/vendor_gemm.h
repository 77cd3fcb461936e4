// The vendor's GEMMs (cuBLASLt), each by the fastest of the algorithms its heuristic proposes.
#pragma once

#include <cstdint>

namespace atom::cuda::bench {

enum class VendorType { kF16, kInt8, kFp8 };

// Median microseconds of y[M, N] = x[M, K] w[N, K]^T on random data rotated past L2; f16 output,
// for int8 int32. Negative when the vendor has no such GEMM.
double vendor_gemm_us(VendorType type, int64_t n, int64_t k, int64_t m);

}  // namespace atom::cuda::bench
