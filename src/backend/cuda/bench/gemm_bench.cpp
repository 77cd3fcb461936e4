#include <cstdio>
#include <vector>

#include "backend/cuda/bench/bench.h"
#include "backend/cuda/bench/timing.h"
#include "backend/cuda/bench/vendor_gemm.h"
#include "backend/cuda/gemm/gemm.h"
#include "backend/cuda/gemm/pack_weights.h"
#include "base/random.h"

namespace atom::cuda::bench {
namespace {

// A kernel's operands on random data, several copies: codes in their places, one scale each.
struct GemmProblem {
  GemmArgs args;
  std::vector<DeviceArray<uint8_t>> weights, x, y;
  DeviceArray<float> row_scales, x_scales;
  DeviceArray<int32_t> x_sums;
  DeviceArray<uint8_t> workspace;

  GemmProblem(GemmFormat kind, const GemmSize& s) {
    const bool two_level = kind == GemmFormat::kW4A8, bytes = kind == GemmFormat::kW8A8;
    WeightFormat format{.kind = two_level ? WeightKind::kTwoLevel : WeightKind::kGrouped,
                        .bits = bytes ? 8 : 4,
                        .group = s.group,
                        .outliers = s.outliers,
                        .outlier_kind = OutlierKind::kInt8};
    if (bytes) {
      format.group = format.outliers = 0;
      format.outlier_kind = OutlierKind::kNone;
    }
    args.format = kind;
    args.rows = s.n;
    args.tokens = s.m;
    args.capacity = (s.m + 255) / 256 * 256;
    args.shape = w4a8_shape(format, s.k);
    const int64_t w_bytes = (s.n + 63) / 64 * args.shape.blocks() * args.shape.block_bytes();
    const int64_t x_bytes = args.capacity * args.shape.act_blocks() * w4a8::kActBlockBytes;
    const int copies = rotations(w_bytes + s.m * s.k);
    for (int i = 0; i < copies; ++i) {
      weights.push_back(repeated(w_bytes, weight_blocks(static_cast<uint64_t>(3 * i))));
      x.push_back(random_bytes(x_bytes, static_cast<uint64_t>(3 * i + 1),
                               kind == GemmFormat::kW4A4 ? 0x87 : 0xff));
      y.push_back(DeviceArray<uint8_t>::allocate(s.n * s.m * 2).value());
    }
    const auto floats = [](int64_t size, float value) {
      return DeviceArray<float>::copy_of(std::vector<float>(static_cast<size_t>(size), value))
          .value();
    };
    row_scales = floats(s.n + 64, 1e-3f);
    x_scales = floats(args.capacity * args.shape.body_blocks * args.shape.groups, 1e-2f);
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
  // About a megabyte of blocks. Any byte is a legal code and a legal two-level scale; f16 scales
  // lie about 1e-3.
  std::vector<uint8_t> weight_blocks(uint64_t seed) const {
    Random random(seed);
    std::vector<uint8_t> blocks(static_cast<size_t>(251 * args.shape.block_bytes()));
    for (size_t i = 0; i < blocks.size(); ++i) {
      const auto byte = static_cast<uint8_t>(random.next());
      const auto in_block = static_cast<int64_t>(i) % args.shape.block_bytes();
      const bool high_of_f16 =
          args.format == GemmFormat::kW4A4 && in_block >= w4a8::kScaleOffset && in_block % 2 == 1;
      blocks[i] = high_of_f16 ? static_cast<uint8_t>(0x14 | (byte & 3)) : byte;
    }
    return blocks;
  }
  double us(GemmChoice choice, int samples) {
    return median_us(
        static_cast<int>(weights.size()),
        [&](int i, cudaStream_t stream) {
          const auto c = static_cast<size_t>(i);
          args.weights = weights[c].data();
          args.x = reinterpret_cast<const int8_t*>(x[c].data());
          args.y = y[c].data();
          const Status status = launch_gemm(args, choice, stream);
          ATOM_CHECK(status.ok(), status.message().c_str());
        },
        samples);
  }
};

}  // namespace

void bench_gemm(GemmFormat format, const std::vector<GemmSize>& sizes, bool all_kernels,
                bool vendor, double copy) {
  std::printf("%-12s %6s | %9s %7s %6s | %9s %9s %9s | %s\n", "NxK", "M", "us", "TOPS", "%copy",
              "xFP16", "xINT8", "xFP8", "kernel");
  for (const GemmSize& s : sizes) {
    GemmProblem problem(format, s);
    const GemmChoice chosen = choose_gemm(problem.args);
    const double us = problem.us(chosen, 30);
    GemmChoice best = chosen;
    double best_us = us;
    if (all_kernels) {
      for (int k = 0; k < gemm_kernel_count(format); ++k) {
        for (const bool split : {false, true}) {
          const double t = problem.us({.kernel = k, .split = split}, 7);
          std::printf("    %-14s %-5s %9.1f us %7.0f TOPS\n", gemm_kernel_name(format, k),
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
                int8 / us, fp8 / us, gemm_kernel_name(format, chosen.kernel),
                chosen.split ? " split" : "");
    std::printf("  [fp16 %.1f int8 %.1f fp8 %.1f us]", f16, int8, fp8);
    if (best_us < us) {
      std::printf("  best %.1f: %s%s", best_us, gemm_kernel_name(format, best.kernel),
                  best.split ? " split" : "");
    }
    std::printf("\n");
    std::fflush(stdout);
  }
}

}  // namespace atom::cuda::bench
