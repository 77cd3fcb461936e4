#include "backend/cuda/norm/rmsnorm_quantize.h"

#include "backend/cuda/gemm/pack_weights.h"
#include "base/random.h"
#include "cuda/device_test.h"
#include "ops/numerics.h"

namespace atom::cuda {
namespace {

struct Case {
  int64_t tokens, channels, outliers;
  DType type = DType::kF16;
  float clip = 1.0f;
};

// Codes, scales and sums must be the very bits of ops/numerics.h.
void check(const Case& c) {
  Random random(static_cast<uint64_t>(c.tokens * 31 + c.channels));
  const int64_t d = c.channels, body = d - c.outliers;
  std::vector<uint8_t> raw(static_cast<size_t>(c.tokens * d * dtype_bytes(c.type)));
  std::vector<float> x(static_cast<size_t>(c.tokens * d)), weight(static_cast<size_t>(d));
  for (size_t i = 0; i < x.size(); ++i) {
    float v = static_cast<float>(random.normal()) * (random.below(50) == 0 ? 40.0f : 1.0f);
    if (static_cast<int64_t>(i) / d == 1) v = 0;  // a row of zeros
    if (c.type == DType::kF32) {
      std::memcpy(&raw[4 * i], &v, 4);
    } else {
      const uint16_t half = c.type == DType::kF16 ? f32_to_f16(v) : f32_to_bf16(v);
      v = c.type == DType::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
      std::memcpy(&raw[2 * i], &half, 2);
    }
    x[i] = v;
  }
  std::vector<uint16_t> perm(static_cast<size_t>(d));
  for (size_t i = 0; i < perm.size(); ++i) perm[i] = static_cast<uint16_t>(i);
  for (size_t i = perm.size(); i > 1; --i) {
    std::swap(perm[i - 1], perm[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
  }
  for (float& w : weight) w = static_cast<float>(0.5 + random.uniform());
  std::vector<float> gathered;
  for (const uint16_t source : perm) gathered.push_back(weight[source]);

  WeightFormat format{.kind = WeightKind::kTwoLevel,
                      .bits = 4,
                      .group = 32,
                      .outliers = c.outliers,
                      .outlier_kind = OutlierKind::kInt8};
  const w4a8::Shape shape = w4a8_shape(format, d);
  const int64_t capacity = (c.tokens + 255) / 256 * 256;
  const auto d_x = to_device(raw);
  const auto d_perm = to_device(perm);
  const auto d_weight = to_device(gathered);
  auto codes = DeviceArray<int8_t>::allocate(shape.act_blocks() * capacity * 128).value();
  codes.fill_bytes(0x55);
  auto scales = to_device(std::vector<float>(static_cast<size_t>(capacity), NAN));
  auto outlier_scales = to_device(std::vector<float>(static_cast<size_t>(capacity), NAN));
  auto sums = to_device(std::vector<int32_t>(static_cast<size_t>(capacity), -1));
  const NormQuantizeArgs args{.x = d_x.data(),
                              .x_type = c.type,
                              .tokens = c.tokens,
                              .channels = d,
                              .outliers = c.outliers,
                              .perm = d_perm.data(),
                              .weight = d_weight.data(),
                              .eps = 1e-5f,
                              .clip = c.clip,
                              .shape = shape,
                              .capacity = capacity,
                              .codes = codes.data(),
                              .scales = scales.data(),
                              .outlier_scales = outlier_scales.data(),
                              .sums = sums.data()};
  const Status status = launch_rmsnorm_quantize(args, nullptr);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const auto got = codes.to_host();
  const auto got_scales = scales.to_host(), got_outlier_scales = outlier_scales.to_host();
  const auto got_sums = sums.to_host();
  const ActFormat acts{.quantized = true, .bits = 8, .group = 0, .clip = c.clip};
  int64_t wrong = 0;
  for (int64_t t = 0; t < c.tokens; ++t) {
    const std::span<const float> in(x.data() + t * d, static_cast<size_t>(d));
    const float factor = numerics::rms_factor(in, args.eps);
    std::vector<float> v(static_cast<size_t>(d));
    for (size_t k = 0; k < v.size(); ++k) v[k] = (in[perm[k]] * factor) * weight[perm[k]];
    std::vector<int8_t> want(static_cast<size_t>(d));
    const std::span<const float> all(v);
    const float scale =
        numerics::quantize_group(all.first(static_cast<size_t>(body)), acts, want.data());
    const float outlier_scale =
        c.outliers == 0 ? 0.0f
                        : numerics::quantize_group(all.last(static_cast<size_t>(c.outliers)),
                                                   numerics::kOutlierActs, want.data() + body);
    EXPECT_EQ(scale, got_scales[static_cast<size_t>(t)]);
    EXPECT_EQ(outlier_scale, got_outlier_scales[static_cast<size_t>(t)]);
    int32_t sum = 0;
    for (int64_t k = 0; k < d; ++k) {
      const bool in_body = k < body;
      const int64_t column = in_body ? k : k - body;
      const int64_t block = (in_body ? 0 : shape.body_blocks) + column / 128;
      if (in_body) sum += want[static_cast<size_t>(k)];
      wrong +=
          got[static_cast<size_t>(w4a8::activation_offset(block, t, column % 128, capacity))] !=
          want[static_cast<size_t>(k)];
    }
    EXPECT_EQ(sum, got_sums[static_cast<size_t>(t)]);
    for (int64_t block = 0; block < shape.act_blocks(); ++block) {
      const bool in_body = block < shape.body_blocks;
      const int64_t first = (in_body ? block : block - shape.body_blocks) * 128;
      for (int64_t k = std::max<int64_t>(0, (in_body ? body : c.outliers) - first); k < 128; ++k) {
        wrong += got[static_cast<size_t>(w4a8::activation_offset(block, t, k, capacity))] != 0;
      }
    }
  }
  EXPECT_EQ(wrong, 0);
}

TEST(RmsnormQuantize, OneToken) { check({1, 4096, 128}); }
TEST(RmsnormQuantize, OddTokens) { check({17, 4096, 128, DType::kBF16}); }
TEST(RmsnormQuantize, Small) { check({129, 576, 64, DType::kF32}); }
TEST(RmsnormQuantize, NoOutliers) { check({3, 2048, 0}); }
TEST(RmsnormQuantize, Wide) { check({33, 8192, 128, DType::kBF16, 0.9f}); }
TEST(RmsnormQuantize, Widest) { check({5, 12288, 256, DType::kF32, 0.95f}); }
TEST(RmsnormQuantize, Many) { check({1000, 4096, 96, DType::kF16, 0.97f}); }

TEST(RmsnormQuantize, ManyUnclipped) { check({700, 4096, 128}); }
TEST(RmsnormQuantize, ManySmall) { check({300, 576, 64, DType::kF32}); }
TEST(RmsnormQuantize, ManyWide) { check({300, 8192, 128, DType::kBF16}); }
TEST(RmsnormQuantize, ManyWithoutOutliers) { check({200, 2048, 0, DType::kBF16}); }

TEST(RmsnormQuantize, RefusesOddWidths) {
  NormQuantizeArgs args;
  args.tokens = 1;
  args.channels = 100;
  EXPECT_EQ(launch_rmsnorm_quantize(args, nullptr).code(), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace atom::cuda
