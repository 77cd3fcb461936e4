#include <cstdio>
#include <vector>

#include "backend/cuda/bench/bench.h"
#include "backend/cuda/bench/timing.h"
#include "backend/cuda/gemm/pack_weights.h"
#include "backend/cuda/norm/rmsnorm_quantize.h"
#include "base/random.h"

namespace atom::cuda::bench {

void bench_norm(const std::vector<GemmSize>& sizes, double copy) {
  std::printf("%-28s | %9s %9s %6s\n", "rmsnorm+gather+quantize", "us", "GB/s", "%copy");
  std::vector<GemmSize> all = sizes;
  if (all.empty()) {
    for (const int64_t d : {4096, 8192}) {
      for (const int64_t m : {1, 8, 32, 128, 512, 2048, 4096})
        all.push_back({.n = 0, .k = d, .m = m});
    }
  }
  for (const GemmSize& size : all) {
    const int64_t d = size.k, m = size.m;
    const int64_t outliers = 128;
    const WeightFormat format{.kind = WeightKind::kTwoLevel,
                              .bits = 4,
                              .group = 128,
                              .outliers = outliers,
                              .outlier_kind = OutlierKind::kInt8};
    const w4a8::Shape shape = w4a8_shape(format, d);
    const int64_t capacity = (m + 255) / 256 * 256;
    const int copies = rotations(m * d * 3);
    std::vector<uint16_t> row(static_cast<size_t>(m * d)), perm(static_cast<size_t>(d));
    Random random(5);
    for (uint16_t& h : row) h = f32_to_f16(static_cast<float>(random.normal()));
    for (size_t i = 0; i < perm.size(); ++i) perm[i] = static_cast<uint16_t>(i);
    for (size_t i = perm.size(); i > 1; --i) {
      std::swap(perm[i - 1], perm[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
    }
    std::vector<DeviceArray<uint16_t>> x;
    std::vector<DeviceArray<int8_t>> codes;
    for (int i = 0; i < copies; ++i) {
      x.push_back(DeviceArray<uint16_t>::copy_of(row).value());
      codes.push_back(DeviceArray<int8_t>::allocate(shape.act_blocks() * capacity * 128).value());
    }
    const auto d_perm = DeviceArray<uint16_t>::copy_of(perm).value();
    const auto weight =
        DeviceArray<float>::copy_of(std::vector<float>(static_cast<size_t>(d), 1.1f)).value();
    auto scales = DeviceArray<float>::allocate(2 * capacity).value();
    auto sums = DeviceArray<int32_t>::allocate(capacity).value();
    const double us = median_us(copies, [&](int i, cudaStream_t stream) {
      const NormQuantizeArgs args{.x = x[static_cast<size_t>(i)].data(),
                                  .x_type = DType::kF16,
                                  .tokens = m,
                                  .channels = d,
                                  .outliers = outliers,
                                  .perm = d_perm.data(),
                                  .weight = weight.data(),
                                  .eps = 1e-5f,
                                  .clip = 1.0f,
                                  .shape = shape,
                                  .capacity = capacity,
                                  .codes = codes[static_cast<size_t>(i)].data(),
                                  .scales = scales.data(),
                                  .outlier_scales = scales.data() + capacity,
                                  .sums = sums.data()};
      const Status status = launch_rmsnorm_quantize(args, stream);
      ATOM_CHECK(status.ok(), status.message().c_str());
    });
    const double gbps = 3e-3 * static_cast<double>(m * d) / us;
    std::printf("D %5ld  M %5ld %12s | %9.2f %9.0f %6.1f\n", static_cast<long>(d),
                static_cast<long>(m), "", us, gbps, 100 * gbps / copy);
  }
}

}  // namespace atom::cuda::bench
