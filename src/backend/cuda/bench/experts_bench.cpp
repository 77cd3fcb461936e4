#include "backend/cuda/bench/bench.h"
#include "backend/cuda/bench/gemm_problem.h"
#include "backend/cuda/bench/vendor_gemm.h"
#include "backend/cuda/experts/grouped_gemm.h"
#include "base/random.h"

namespace atom::cuda::bench {
namespace {

constexpr GemmFormat kFormat = GemmFormat::kW4A8;
constexpr int kExperts = 8, kActive = 2;

// Where the experts' rows begin when every token goes to two different ones at random.
std::vector<int32_t> random_offsets(int64_t tokens) {
  Random random(11);
  std::vector<int32_t> offsets(kExperts + 1);
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t first = random.below(kExperts);
    const int64_t second = (first + 1 + random.below(kExperts - 1)) % kExperts;
    for (const int64_t e : {first, second}) ++offsets[static_cast<size_t>(e) + 1];
  }
  for (size_t e = 0; e < kExperts; ++e) offsets[e + 1] += offsets[e];
  return offsets;
}

// The experts are the parts of one tall matrix.
class ExpertProblem {
 public:
  static Result<ExpertProblem> create(const KernelSize& size) {
    if (size.rows % w4a8::kBlockRows != 0) {
      return error(ErrorCode::kInvalidArgument, "bench kernels: experts of {} rows, not of {}n",
                   size.rows, w4a8::kBlockRows);
    }
    ExpertProblem p;
    p.size_ = size;
    p.all_ = ATOM_TRY(GemmProblem::create(
        kFormat,
        {.rows = kExperts * size.rows, .inputs = size.inputs, .tokens = kActive * size.tokens},
        kOutliers));
    const w4a8::Shape shape = p.all_.args(0).shape;
    p.expert_bytes_ = size.rows / w4a8::kBlockRows * shape.blocks() * shape.block_bytes();
    for (int copy = 0; copy < p.all_.copies(); ++copy) {
      const GemmArgs args = p.all_.args(copy);
      std::vector<WeightView> views(kExperts);
      for (int64_t e = 0; e < kExperts; ++e) {
        views[static_cast<size_t>(e)].codes = args.weights + e * p.expert_bytes_;
        views[static_cast<size_t>(e)].row_scales = args.row_scales;
      }
      p.views_.push_back(ATOM_TRY(DeviceArray<WeightView>::copy_of(views)));
    }
    const std::vector<int32_t> offsets = random_offsets(size.tokens);
    for (size_t e = 0; e < kExperts; ++e) p.hit_ += offsets[e + 1] > offsets[e] ? 1 : 0;
    p.offsets_ = ATOM_TRY(DeviceArray<int32_t>::copy_of(offsets));
    return p;
  }

  int hit() const { return hit_; }  // experts that have tokens
  GemmChoice choose() const { return choose_grouped_gemm(args(0), groups(0)); }
  Work work(GemmChoice choice) const {
    return {.copies = all_.copies(), .run = [this, choice](int copy, cudaStream_t stream) {
              must(launch_grouped_gemm(args(copy), groups(copy), choice, stream));
            }};
  }
  double ops() const { return all_.ops() / kExperts; }
  // Weights of the experts that are hit and activations read, outputs written.
  double bytes() const {
    return static_cast<double>(hit_ * expert_bytes_ +
                               kActive * size_.tokens * (size_.inputs + 2 * size_.rows));
  }

 private:
  GemmArgs args(int copy) const {
    GemmArgs args = all_.args(copy);
    args.rows = size_.rows;
    return args;
  }
  ExpertGroups groups(int copy) const {
    return {.w = views_[static_cast<size_t>(copy)].data(),
            .offsets = offsets_.data(),
            .count = kExperts,
            .most_tokens = size_.tokens};
  }

  KernelSize size_;
  GemmProblem all_;
  int64_t expert_bytes_ = 0;  // of weights
  int hit_ = 0;
  std::vector<DeviceArray<WeightView>> views_;  // of each copy
  DeviceArray<int32_t> offsets_;
};

std::string name_of(GemmChoice choice) {
  return fmt::format("{}{}", grouped_gemm_kernel_name(kFormat, choice.kernel),
                     choice.split ? " split" : "");
}

}  // namespace

Status bench_experts(const Run& run) {
  std::vector<GemmChoice> choices;
  for (int kernel = 0; kernel < grouped_gemm_kernel_count(kFormat); ++kernel) {
    for (const bool split : {false, true}) choices.push_back({.kernel = kernel, .split = split});
  }
  for (const KernelSize& size : run.options.sizes) {
    const auto problem = ATOM_TRY(ExpertProblem::create(size));
    GemmChoice choice = problem.choose();
    std::vector<KernelBaseline> others;
    if (run.options.tune) {
      choice = fastest(
          choice, choices, name_of, [&](GemmChoice c) { return problem.work(c); }, others);
    }
    const Work work = problem.work(choice);
    KernelFigure figure =
        run.figure("experts",
                   fmt::format("{} of {} x {}x{} M {}", problem.hit(), kExperts, size.rows,
                               size.inputs, size.tokens),
                   name_of(choice), time_us(work.copies, work.run, run.options.samples),
                   problem.ops(), problem.bytes());
    // A GEMM of its own for each expert that is hit, of even shares.
    const int64_t share = std::max<int64_t>(1, kActive * size.tokens / problem.hit());
    figure.baselines = ATOM_TRY(vendor_gemms(
        {.rows = size.rows, .inputs = size.inputs, .tokens = share}, run.options.samples));
    for (KernelBaseline& baseline : figure.baselines) baseline.us *= problem.hit();
    figure.others = std::move(others);
    ATOM_TRY(run.each(figure));
  }
  return {};
}

}  // namespace atom::cuda::bench
