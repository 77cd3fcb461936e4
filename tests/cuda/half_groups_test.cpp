// The products of halves of output layers against products in double of the same bytes and scales.
#include "backend/cuda/linear/half_groups.h"

#include <array>

#include "backend/cuda/gemm/gemm.h"
#include "backend/cuda/linear/half_operands.h"
#include "backend/cuda/objects.h"
#include "cuda/device_test.h"
#include "cuda/gemm_cases.h"

namespace atom::cuda {
namespace {

// Weights and activations are rounded to F16 once, 2^-11 of each at most: 4e-8 of the power of a
// product of independent terms each.
constexpr double kHalvesLimit = 2e-7;

struct Case {
  int64_t rows, cols, tokens;
  DType type = DType::kF32;
  bool bias = false, accumulate = false;
  float row_scale = 1, token_scale = 1;  // that all scales of every other row or token have more
  int64_t scratch_tokens = 1024;         // that there is room for
};

PackedLinear random_bytes(const Case& c, uint64_t seed) {
  // Of nibbles, as many bytes.
  PackedLinear p = random_grouped(c.rows, 2 * c.cols, 0, 64, seed, c.bias);
  p.cols = c.cols;
  p.format.weight.bits = 8;
  p.format.weight.group = 32;
  p.format.act = {.quantized = true, .bits = 8, .group = 32};
  for (size_t i = 0; i < p.scales.size(); ++i) {
    if (static_cast<int64_t>(i) / p.groups() % 2 == 0) continue;
    p.scales[i] = f32_to_f16(f16_to_f32(p.scales[i]) * c.row_scale);
  }
  return p;
}

// Every other token's outputs are of another magnitude: what one of them is off by is told beside
// its own.
void expect_close(const std::vector<float>& got, const std::vector<double>& want, const Case& c) {
  const double limit = kHalvesLimit + (c.type == DType::kF16 ? nmse_limit(c.type) : 0);
  for (int64_t row = 0; row < 2; ++row) {
    for (int64_t token = 0; token < 2; ++token) {
      std::vector<float> part;
      std::vector<double> part_want;
      for (int64_t t = token; t < c.tokens; t += 2) {
        for (int64_t n = row; n < c.rows; n += 2) {
          part.push_back(got[static_cast<size_t>(t * c.rows + n)]);
          part_want.push_back(want[static_cast<size_t>(t * c.rows + n)]);
        }
      }
      if (part.empty()) continue;
      const double error = nmse(part, part_want);
      EXPECT_LE(error, limit) << c.tokens << " x " << c.rows << " x " << c.cols;
      if (row + token == 0) ::testing::Test::RecordProperty("nmse", fmt::format("{:.2e}", error));
    }
  }
}

void check(const Case& c) {
  const PackedLinear packed = random_bytes(c, static_cast<uint64_t>(c.rows));
  ASSERT_TRUE(validate(packed).ok()) << validate(packed).message();
  PlainActivations x = random_activations(c.tokens, c.cols, 0, 5, -128, 127, c.cols / 32);
  for (size_t i = 0; i < x.scales.size(); ++i) {
    if (static_cast<int64_t>(i) / x.groups % 2 == 1) x.scales[i] *= c.token_scale;
  }
  std::vector<double> want = reference(packed, x);
  std::vector<float> before;
  if (c.accumulate) {
    Random random(3);
    for (double& value : want) {
      before.push_back(static_cast<float>(random.normal()));
      value += before.back();
    }
  }
  Staging staging(nullptr);
  const auto linear = CudaLinear::create(packed, {.hopper = true}, staging).value();
  const auto codes = to_device(x.codes);
  const auto scales = to_device(x.scales);
  auto workspace = DeviceArray<uint8_t>::allocate(gemm_workspace_bytes()).value();
  workspace.fill_bytes(0xff);  // NaN where no token stands
  const int64_t scratch_bytes = half_operands::bytes(static_cast<int>(c.cols), c.scratch_tokens);
  const std::span<uint8_t> scratch =
      gemm_scratch(workspace.data()).first(static_cast<size_t>(scratch_bytes));
  PoisonedOutput y(c.rows * c.tokens, c.type);
  if (c.accumulate) y.set(before);
  launch_half_groups({.w = linear->view(),
                      .x = codes.data(),
                      .x_stride = c.cols,
                      .x_scales = scales.data(),
                      .x_groups = static_cast<int>(x.groups),
                      .y = y.data(),
                      .halves = c.type == DType::kF16,
                      .tokens = static_cast<int>(c.tokens),
                      .accumulate = c.accumulate},
                     scratch, nullptr);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  expect_close(y.values(), want, c);
}

TEST(HalfGroups, EveryTileOfTokens) {
  for (const int64_t tokens : {1, 17, 32, 33, 64, 65, 96, 97, 128, 129, 200, 300}) {
    check({512, 1024, tokens});
  }
}
TEST(HalfGroups, RowsThatEndInATile) {
  for (const int64_t rows : {1, 63, 64, 257, 515, 1020}) check({rows, 512, 71});
}
TEST(HalfGroups, ColumnsThatEndInAStage) {
  for (const int64_t cols : {32, 64, 96, 576, 608, 992}) check({300, cols, 50});
}
TEST(HalfGroups, ManyTiles) { check({49152, 64, 130}); }
TEST(HalfGroups, LongK) { check({260, 14336, 100}); }
TEST(HalfGroups, Halves) {
  check({320, 512, 40, DType::kF16});
  check({321, 512, 128, DType::kF16});
}
TEST(HalfGroups, Bias) {
  check({320, 512, 40, DType::kF32, true});
  check({323, 512, 128, DType::kF16, true});
}
TEST(HalfGroups, Accumulate) {
  check({320, 512, 40, DType::kF32, false, true});
  check({323, 512, 128, DType::kF32, true, true});
}
// As many tokens at a time as there is room for.
TEST(HalfGroups, LittleScratch) {
  for (const int64_t room : {8, 24, 128}) {
    check({.rows = 300, .cols = 512, .tokens = 300, .scratch_tokens = room});
  }
}
// Scales whose products with codes are beyond F16 or below its normal numbers.
TEST(HalfGroups, ScalesOfAnySize) {
  for (const float row_scale : {3e6f, 1e-4f}) {
    for (const float token_scale : {1e6f, 1e-9f, 1e20f, 1e-25f}) {
      check({.rows = 300,
             .cols = 512,
             .tokens = 66,
             .row_scale = row_scale,
             .token_scale = token_scale});
    }
  }
}
}  // namespace
}  // namespace atom::cuda
