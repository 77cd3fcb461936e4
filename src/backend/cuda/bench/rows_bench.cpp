#include "backend/cuda/bench/rows_problem.h"

namespace atom::cuda::bench {

Status bench_rows(const Run& run) {
  std::vector<KernelSize> sizes;
  for (const KernelSize& size : run.options.sizes) {
    // Rows do not depend on what the linear makes of them.
    const bool known = std::any_of(sizes.begin(), sizes.end(), [&](const KernelSize& s) {
      return s.inputs == size.inputs && s.tokens == size.tokens;
    });
    if (!known) sizes.push_back(size);
  }
  for (const KernelSize& size : sizes) {
    for (const RowFormat format :
         {RowFormat::kW4A8, RowFormat::kW4A4, RowFormat::kFp4, RowFormat::kW4A4Search}) {
      const auto problem = ATOM_TRY(RowsProblem::create(format, size, kOutliers));
      const Timing timing = time_us(
          problem.copies(), [&](int copy, cudaStream_t stream) { problem.launch(copy, stream); },
          run.options.samples);
      // Floats in, bytes out.
      const double bytes = 5.0 * static_cast<double>(size.inputs * size.tokens);
      ATOM_TRY(run.each(run.figure("rows", fmt::format("K {} M {}", size.inputs, size.tokens),
                                   std::string(problem.name()), timing, 0, bytes)));
    }
  }
  return {};
}

}  // namespace atom::cuda::bench
