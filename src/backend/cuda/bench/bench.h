// The benchmark's parts, one a file.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/cuda/gemm/gemm.h"

namespace atom::cuda::bench {

struct GemmSize {
  int64_t n, k, m, outliers = 128, group = 128;
};

// copy: the measured copy rate in GB/s. all_kernels: time the whole table, to judge the cost model.
void bench_gemm(GemmFormat format, const std::vector<GemmSize>& sizes, bool all_kernels,
                bool vendor, double copy);

// Decode attention over INT4, INT8 and F16 pages.
void bench_attention(double copy);

// RMSNorm + gather + quantize of m tokens of k channels from f16.
void bench_norm(const std::vector<GemmSize>& sizes, double copy);

}  // namespace atom::cuda::bench
