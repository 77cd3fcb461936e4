// The benchmark's parts, a file for each group of kernels.
#pragma once

#include <functional>
#include <string>

#include "backend/cuda/bench/timing.h"
#include "backend/cuda/gemm/gemm.h"
#include "backend/cuda/kernel_bench.h"

namespace atom::cuda::bench {

struct Run {
  const KernelBenchMachine& machine;
  const KernelBenchOptions& options;
  const std::function<Status(const KernelFigure&)>& each;

  // ops: useful operations; bytes: what must be moved; peak: of the operations, over INT8's.
  KernelFigure figure(const char* group, std::string problem, std::string kernel,
                      const Timing& timing, double ops, double bytes, double peak = 1) const;
};

// Sizes where none are asked for: a square layer with 16 to 4096 tokens.
std::vector<KernelSize> paper_sizes();

Status bench_gemm(GemmFormat format, const Run& run);
Status bench_experts(const Run& run);
Status bench_attention(const Run& run);
Status bench_rows(const Run& run);
Status bench_reorder(const Run& run);
Status bench_sampling(const Run& run);

// Outlier columns and group size of all linears.
inline constexpr int64_t kOutliers = 128, kGroup = 128;

}  // namespace atom::cuda::bench
