#include <cstdio>
#include <vector>

#include "backend/cuda/bench/bench.h"
#include "backend/cuda/bench/timing.h"
#include "backend/cuda/bench/vendor_gemm.h"
#include "backend/cuda/gemm/gemm.h"
#include "backend/cuda/gemm/pack_weights.h"

namespace atom::cuda::bench {
namespace {

// w4a8 operands on random data, several copies. The kernels' layouts are only permutations of
// random bytes, apart from the scales, which any byte is legal for in the kernel.
struct W4A8Problem {
  GemmArgs args;
  std::vector<DeviceArray<uint8_t>> weights, x, y;
  DeviceArray<float> row_scales, x_scales;
  DeviceArray<int32_t> x_sums;
  DeviceArray<uint8_t> workspace;

  W4A8Problem(int64_t n, int64_t k, int64_t m, int64_t outliers) {
    const WeightFormat format{.kind = WeightKind::kTwoLevel,
                              .bits = 4,
                              .group = 128,
                              .outliers = outliers,
                              .outlier_kind = OutlierKind::kInt8};
    args.rows = n;
    args.tokens = m;
    args.capacity = (m + 255) / 256 * 256;
    args.shape = w4a8_shape(format, k);
    const int64_t w_bytes = (n + 63) / 64 * args.shape.blocks() * args.shape.block_bytes();
    const int64_t x_bytes = args.capacity * args.shape.act_blocks() * 128;
    const int copies = rotations(w_bytes + m * k);
    for (int i = 0; i < copies; ++i) {
      weights.push_back(random_bytes(w_bytes, static_cast<uint64_t>(3 * i)));
      x.push_back(random_bytes(x_bytes, static_cast<uint64_t>(3 * i + 1)));
      y.push_back(DeviceArray<uint8_t>::allocate(n * m * 2).value());
    }
    row_scales =
        DeviceArray<float>::copy_of(std::vector<float>(static_cast<size_t>(n + 64), 1e-3f)).value();
    x_scales =
        DeviceArray<float>::copy_of(std::vector<float>(static_cast<size_t>(args.capacity), 1e-2f))
            .value();
    workspace = DeviceArray<uint8_t>::allocate(gemm_workspace_bytes()).value();
    workspace.fill_bytes(0);
    x_sums = DeviceArray<int32_t>::copy_of(
                 std::vector<int32_t>(static_cast<size_t>(args.capacity), 1000))
                 .value();
    args.x_sums = x_sums.data();
    args.row_scales = row_scales.data();
    args.x_scales = args.x_outlier_scales = x_scales.data();
    args.workspace = workspace.data();
  }
  double us(GemmChoice choice, int samples) {
    return median_us(
        static_cast<int>(weights.size()),
        [&](int i, cudaStream_t stream) {
          const auto c = static_cast<size_t>(i);
          args.weights = weights[c].data();
          args.x = reinterpret_cast<const int8_t*>(x[c].data());
          args.y = y[c].data();
          const Status status = launch_w4a8(args, choice, stream);
          ATOM_CHECK(status.ok(), status.message().c_str());
        },
        samples);
  }
};

}  // namespace

void bench_w4a8(const std::vector<GemmSize>& sizes, bool all_kernels, bool vendor, double copy) {
  std::printf("%-12s %6s | %9s %7s %6s | %9s %9s %9s | %s\n", "NxK", "M", "us", "TOPS", "%copy",
              "xFP16", "xINT8", "xFP8", "kernel");
  for (const GemmSize& s : sizes) {
    W4A8Problem problem(s.n, s.k, s.m, s.outliers);
    const GemmChoice chosen = choose_w4a8(problem.args);
    const double us = problem.us(chosen, 30);
    GemmChoice best = chosen;
    double best_us = us;
    if (all_kernels) {
      for (int k = 0; k < w4a8_kernel_count(); ++k) {
        for (const bool split : {false, true}) {
          const double t = problem.us({.kernel = k, .split = split}, 7);
          std::printf("    %-14s %-5s %9.1f us %7.0f TOPS\n", w4a8_kernel_name(k),
                      split ? "split" : "", t,
                      2e-6 * static_cast<double>(s.n * s.k) * static_cast<double>(s.m) / t);
          if (t < best_us * 0.99) {
            best_us = t;
            best = {.kernel = k, .split = split};
          }
        }
      }
      if (best_us < us) best_us = problem.us(best, 30);
    }
    const double f16 = vendor ? vendor_gemm_us(VendorType::kF16, s.n, s.k, s.m) : 0;
    const double int8 = vendor ? vendor_gemm_us(VendorType::kInt8, s.n, s.k, s.m) : 0;
    const double fp8 = vendor ? vendor_gemm_us(VendorType::kFp8, s.n, s.k, s.m) : 0;
    const double tops = 2e-6 * static_cast<double>(s.n * s.k) * static_cast<double>(s.m);
    const double bytes = static_cast<double>((s.n + 63) / 64 * problem.args.shape.blocks() *
                                                 problem.args.shape.block_bytes() +
                                             s.m * s.k + 2 * s.m * s.n);
    char name[32];
    std::snprintf(name, sizeof(name), "%ldx%ld", static_cast<long>(s.n), static_cast<long>(s.k));
    std::printf("%-12s %6ld | %9.1f %7.0f %6.1f | %9.2f %9.2f %9.2f | %s%s", name,
                static_cast<long>(s.m), us, tops / us, 100 * bytes * 1e-3 / us / copy, f16 / us,
                int8 / us, fp8 / us, w4a8_kernel_name(chosen.kernel), chosen.split ? " split" : "");
    std::printf("  [fp16 %.1f int8 %.1f fp8 %.1f us]", f16, int8, fp8);
    if (best_us < us) {
      std::printf("  best %.1f: %s%s", best_us, w4a8_kernel_name(best.kernel),
                  best.split ? " split" : "");
    }
    std::printf("\n");
    std::fflush(stdout);
  }
}

}  // namespace atom::cuda::bench
