// What outliers cost: norm, reorder, quantization and linear as two fused kernels; as kernels of
// their own; and without any outliers.
#include "backend/cuda/bench/bench_kernels.h"
#include "backend/cuda/bench/gemm_problem.h"
#include "backend/cuda/bench/rows_problem.h"
#include "backend/cuda/norm/rmsnorm_quantize.h"
#include "backend/cuda/vendor/matmul.h"

namespace atom::cuda::bench {
namespace {

// The norm's rows and the GEMM that reads them.
Result<Timing> fused(const KernelSize& size, int64_t outliers, int samples, double* bytes) {
  const auto rows = ATOM_TRY(RowsProblem::create(RowFormat::kW4A8, size, outliers));
  auto gemm = ATOM_TRY(GemmProblem::create(GemmFormat::kW4A8, size, outliers));
  const GemmChoice choice = choose_gemm(gemm.args(0));
  *bytes = gemm.bytes() + 5.0 * static_cast<double>(size.inputs * size.tokens);
  return time_us(
      gemm.copies(),
      [&](int copy, cudaStream_t stream) {
        rows.launch(copy % rows.copies(), stream, gemm.codes(copy));
        const Status status = launch_gemm(gemm.args(copy), choice, stream);
        ATOM_CHECK(status.ok(), status.message().c_str());
      },
      samples);
}

// Norm to floats; a gather of the columns into a body and a tail of halves; the body quantized and
// multiplied; the tail multiplied by the vendor's FP16 GEMM and added. Zero without the vendor.
Result<double> naive(const KernelSize& size, int samples) {
  const int64_t body = size.inputs - kOutliers;
  const auto rows = ATOM_TRY(RowsProblem::create(RowFormat::kW4A8, size, kOutliers));
  auto gemm = ATOM_TRY(
      GemmProblem::create(GemmFormat::kW4A8, {size.rows, body, size.tokens}, /*outliers=*/0));
  const GemmChoice choice = choose_gemm(gemm.args(0));
  const GemmArgs layout = gemm.args(0);
  auto normalised = ATOM_TRY(DeviceArray<float>::allocate(size.tokens * size.inputs));
  auto body_columns = ATOM_TRY(DeviceArray<float>::allocate(size.tokens * body));
  auto tail_columns = ATOM_TRY(DeviceArray<uint8_t>::allocate(size.tokens * kOutliers * 2));
  auto tail_weights = ATOM_TRY(random_halves(size.rows * kOutliers, 9));
  auto scales = ATOM_TRY(DeviceArray<float>::allocate(layout.capacity));
  auto sums = ATOM_TRY(DeviceArray<int32_t>::allocate(layout.capacity));
  std::vector<uint16_t> in_order(static_cast<size_t>(body));
  for (size_t k = 0; k < in_order.size(); ++k) in_order[k] = static_cast<uint16_t>(k);
  const auto identity = ATOM_TRY(DeviceArray<uint16_t>::copy_of(in_order));
  Matmul vendor;
  bool found = true;
  const auto run = [&](int copy, cudaStream_t stream) {
    const GemmArgs args = gemm.args(copy);
    launch_quantize_rows({.source = RowSource::kNorm,
                          .x = rows.x(copy % rows.copies()),
                          .tokens = static_cast<int>(size.tokens),
                          .channels = static_cast<int>(size.inputs),
                          .norm_weight = rows.weight(),
                          .eps = 1e-5f,
                          .values = normalised.data(),
                          .value_count = static_cast<int>(size.inputs)},
                         stream);
    gather_columns({.x = normalised.data(),
                    .perm = rows.perm16(),
                    .body_columns = body_columns.data(),
                    .tail_columns = tail_columns.data(),
                    .tokens = size.tokens,
                    .channels = size.inputs,
                    .body = body},
                   stream);
    Status status = launch_rmsnorm_quantize({.norm = false,
                                             .x = body_columns.data(),
                                             .x_type = DType::kF32,
                                             .tokens = size.tokens,
                                             .channels = body,
                                             .perm = identity.data(),
                                             .shape = args.shape,
                                             .capacity = args.capacity,
                                             .codes = gemm.codes(copy),
                                             .scales = scales.data(),
                                             .outlier_scales = scales.data(),
                                             .sums = sums.data()},
                                            stream);
    ATOM_CHECK(status.ok(), status.message().c_str());
    status = launch_gemm(args, choice, stream);
    ATOM_CHECK(status.ok(), status.message().c_str());
    found = vendor.run({.type = MatmulType::kF16,
                        .m = size.tokens,
                        .n = size.rows,
                        .k = kOutliers,
                        .a = {.data = tail_columns.data(), .stride = kOutliers},
                        .b = {.data = tail_weights.data(), .stride = kOutliers},
                        .c = args.y,
                        .c_stride = size.rows,
                        .c_type = DType::kF16,
                        .beta = 1.0f},
                       stream) &&
            found;
  };
  const double us = time_us(gemm.copies(), run, samples).median;
  return found ? us : 0.0;
}

}  // namespace

Status bench_reorder(const Run& run) {
  for (const KernelSize& size : run.options.sizes) {
    double bytes = 0, plain_bytes = 0;
    const Timing timing = ATOM_TRY(fused(size, kOutliers, run.options.samples, &bytes));
    const Timing plain = ATOM_TRY(fused(size, 0, run.options.samples, &plain_bytes));
    const double apart = ATOM_TRY(naive(size, run.options.samples));
    const double ops = 2.0 * static_cast<double>(size.rows) * static_cast<double>(size.inputs) *
                       static_cast<double>(size.tokens);
    KernelFigure figure =
        run.figure("reorder", fmt::format("{}x{} M {}", size.rows, size.inputs, size.tokens),
                   "norm + gather + quantize, w4a8 with outliers", timing, ops, bytes);
    if (apart > 0) figure.baselines.push_back({.name = "naive", .us = apart});
    figure.baselines.push_back({.name = "no_outliers", .us = plain.median});
    ATOM_TRY(run.each(figure));
  }
  return {};
}

}  // namespace atom::cuda::bench
