#include "backend/cuda/bench/bench.h"
#include "backend/cuda/bench/gemm_problem.h"
#include "backend/cuda/bench/vendor_gemm.h"

namespace atom::cuda::bench {
namespace {

const char* group_of(GemmFormat format) {
  switch (format) {
    case GemmFormat::kW4A8:
      return "w4a8";
    case GemmFormat::kW8A8:
      return "w8a8";
    case GemmFormat::kW4A4:
      return "w4a4";
    case GemmFormat::kW4A16:
      return "w4a16";
    case GemmFormat::kFp4:
      return "fp4";
  }
  return "";
}

std::string name_of(GemmFormat format, GemmChoice choice) {
  return fmt::format("{}{}", gemm_kernel_name(format, choice.kernel), choice.split ? " split" : "");
}

// Every kernel of the table, whole and split.
std::vector<GemmChoice> all_choices(GemmFormat format) {
  std::vector<GemmChoice> choices;
  for (int kernel = 0; kernel < gemm_kernel_count(format); ++kernel) {
    choices.push_back({.kernel = kernel});
    if (!gemm_shares_tiles(format, kernel)) choices.push_back({.kernel = kernel, .split = true});
  }
  return choices;
}

}  // namespace

Status bench_gemm(GemmFormat format, const Run& run) {
  for (const KernelSize& size : run.options.sizes) {
    const bool outliers = format == GemmFormat::kW4A8 || format == GemmFormat::kW4A4;
    const auto problem = ATOM_TRY(GemmProblem::create(format, size, outliers ? kOutliers : 0));
    GemmChoice choice = choose_gemm(problem.args(0));
    std::vector<KernelBaseline> others;
    if (run.options.tune) {
      choice = fastest(
          choice, all_choices(format), [&](GemmChoice c) { return name_of(format, c); },
          [&](GemmChoice c) { return problem.work(c); }, others);
    }
    const Work work = problem.work(choice);
    KernelFigure figure =
        run.figure(group_of(format), fmt::format("{}x{} M {}", size.rows, size.inputs, size.tokens),
                   name_of(format, choice), time_us(work.copies, work.run, run.options.samples),
                   problem.ops(), problem.bytes(), format == GemmFormat::kW4A16 ? 0.5 : 1.0);
    figure.baselines = ATOM_TRY(vendor_gemms(size, run.options.samples));
    figure.others = std::move(others);
    ATOM_TRY(run.each(figure));
  }
  return {};
}

}  // namespace atom::cuda::bench
