// The GEMMs by mma.sync. On chips from sm_90 on the INT4 products are emulated, exactly.
#include "backend/cuda/gemm/gemm_sm80.h"

#include "backend/cuda/gemm/nvfp4_layout.h"
#include "cuda/device_test.h"
#include "cuda/gemm_cases.h"
#include "cuda/nvfp4_cases.h"
#include "cuda/packed_blocks.h"
#include "tensor/quantized_linear.h"

namespace atom::cuda {
namespace {

struct Case {
  int64_t rows, body, outliers, group, tokens;
  DType type = DType::kF32;
  bool bias = false, accumulate = false;
  bool largest = false;  // every product as large as can be
};

// Bits of the scales, NaN where no token is and zero behind the body.
std::vector<int8_t> lay_out_e4m3(const PlainActivations& x, const w4a8::Shape& shape,
                                 int64_t capacity) {
  std::vector<int8_t> out(static_cast<size_t>(shape.body_blocks * capacity * nvfp4::kBlockGroups),
                          0x7f);
  const int64_t body = x.cols - x.outliers, width = body / x.groups;
  for (int64_t t = 0; t < x.tokens; ++t) {
    for (int64_t k = 0; k < shape.body_blocks * w4a8::kBlockCols; k += nvfp4::kGroup) {
      const float scale =
          k < body ? x.scales[static_cast<size_t>(t * x.groups + k / width)] / unit_of(t) : 0.0f;
      out[static_cast<size_t>(k / w4a8::kBlockCols * capacity + t) * nvfp4::kBlockGroups +
          static_cast<size_t>(k % w4a8::kBlockCols / nvfp4::kGroup)] =
          static_cast<int8_t>(e4m3_bits(scale));
    }
  }
  return out;
}
// Body codes as nibbles, the scales of NVFP4 behind them, outliers as the other formats have them;
// garbage where no token is.
std::vector<int8_t> lay_out_nibbles(const PlainActivations& x, const w4a8::Shape& shape,
                                    int64_t capacity, Sm80Format format) {
  const bool fp4 = format != Sm80Format::kW4A4;
  const w4a8::Shape tail = {.body_blocks = 0, .outlier_blocks = shape.outlier_blocks};
  PlainActivations outliers = x;
  outliers.cols = x.outliers;
  outliers.codes.clear();
  const int64_t body = x.cols - x.outliers;
  std::vector<int8_t> out(static_cast<size_t>(w4a4_s4::outlier_start(shape, capacity)), 0x57);
  for (int64_t t = 0; t < x.tokens; ++t) {
    const int8_t* codes = x.codes.data() + t * x.cols;
    for (int64_t k = 0; k < shape.body_blocks * w4a8::kBlockCols; ++k) {
      auto& byte =
          out[static_cast<size_t>(w4a4_s4::activation_byte(k / 128, t, k % 128, capacity))];
      const int code = k >= body ? 0 : fp4 ? e2m1_bits(codes[k]) : codes[k] & 15;
      byte = static_cast<int8_t>(k % 2 == 0 ? code : (byte & 15) | code << 4);
    }
    outliers.codes.insert(outliers.codes.end(), codes + body, codes + x.cols);
  }
  if (format == Sm80Format::kNvFp4) {
    const std::vector<int8_t> scales = lay_out_e4m3(x, shape, capacity);
    out.insert(out.end(), scales.begin(), scales.end());
  }
  const std::vector<int8_t> rest = lay_out(outliers, tail, capacity, GemmFormat::kW4A8);
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

// [block][capacity], NaN where no token is.
std::vector<float> group_scales(const PlainActivations& x, const w4a8::Shape& shape,
                                int64_t capacity) {
  std::vector<float> out(static_cast<size_t>(shape.body_blocks * capacity), NAN);
  const int64_t width = (x.cols - x.outliers) / x.groups;
  for (int64_t b = 0; b < shape.body_blocks; ++b) {
    for (int64_t t = 0; t < x.tokens; ++t) {
      out[static_cast<size_t>(b * capacity + t)] =
          x.scales[static_cast<size_t>(t * x.groups + b * w4a8::kBlockCols / width)];
    }
  }
  return out;
}

void check(Sm80Format format, const Case& c) {
  const bool nvfp4 = format == Sm80Format::kNvFp4, fp4 = nvfp4 || format == Sm80Format::kFp4;
  const bool nibbles = format != Sm80Format::kW4A8;
  PackedLinear linear =
      (nvfp4     ? random_nvfp4
       : fp4     ? random_fp4
       : nibbles ? random_grouped
                 : random_two_level)(c.rows, c.body, c.outliers, nvfp4 ? c.group / 8 : c.group,
                                     static_cast<uint64_t>(1 + c.rows), c.bias);
  const auto seed = static_cast<uint64_t>(7 + c.tokens);
  PlainActivations x =
      fp4 ? random_fp4_activations(c.tokens, c.body, c.outliers, seed, linear.groups())
          : random_activations(c.tokens, c.body, c.outliers, seed, nibbles ? -8 : -127,
                               nibbles ? 7 : 127, nibbles ? linear.groups() : 1);
  if (c.largest) {
    for (auto& codes : linear.codes) codes = fp4 ? 0xff : 0x88;
    for (auto& code : linear.outlier_codes) code = -127;
    for (size_t i = 0; i < x.codes.size(); ++i) {
      const bool in_body = static_cast<int64_t>(i) % x.cols < c.body;
      x.codes[i] = static_cast<int8_t>(in_body ? (fp4 ? -12 : -8) : i % 7 == 0 ? 126 : 127);
    }
  }
  if (nvfp4) make_scales_e4m3(x, seed);
  PackedLinear plain = linear;
  if (nvfp4) plain.scales = f16_scales(linear);
  std::vector<double> want = reference(plain, x);
  std::vector<float> before;
  if (c.accumulate) {
    Random random(3);
    for (double& w : want) {
      before.push_back(f16_to_f32(f32_to_f16(static_cast<float>(random.normal()))));
      w += before.back();
    }
  }
  const GemmWeights packed = pack_all((nvfp4     ? pack_nvfp4
                                       : nibbles ? pack_w4a4_s4
                                                 : pack_w4a8)(linear)
                                          .value());
  const w4a8::Shape shape = w4a8_shape(linear.format.weight, linear.cols);
  const int64_t capacity = (c.tokens + 255) / 256 * 256;
  std::vector<float> outlier_scales = x.outlier_scales;
  outlier_scales.resize(static_cast<size_t>(capacity), NAN);
  const auto weights = to_device(packed.blocks);
  const auto row_scales = to_device(packed.row_scales);
  const auto acts = to_device(nibbles ? lay_out_nibbles(x, shape, capacity, format)
                                      : lay_out(x, shape, capacity, GemmFormat::kW4A8));
  const auto x_scales =
      to_device(nvfp4     ? lay_out_units(x, capacity)
                : nibbles ? group_scales(x, shape, capacity)
                          : lay_out_scales(x, shape, capacity, GemmFormat::kW4A8));
  const auto x_outlier_scales = to_device(outlier_scales);
  const auto x_sums = to_device(body_sums(x, capacity));
  const auto bias = to_device(linear.bias);
  PoisonedOutput y(c.rows * c.tokens, c.type);
  if (c.accumulate) y.set(before);
  const GemmArgs args{.rows = c.rows,
                      .tokens = c.tokens,
                      .capacity = capacity,
                      .shape = shape,
                      .weights = weights.data(),
                      .row_scales = row_scales.data(),
                      .x = acts.data(),
                      .x_scales = x_scales.data(),
                      .x_outlier_scales = c.outliers > 0 ? x_outlier_scales.data() : nullptr,
                      .x_sums = x_sums.data(),
                      .bias = c.bias ? bias.data() : nullptr,
                      .y = y.data(),
                      .y_type = c.type,
                      .accumulate = c.accumulate};
  const Status status = launch_gemm_sm80(format, args, nullptr);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_LE(nmse(y.values(), want), nmse_limit(c.type));
}

// All formats; every number of tokens of a tile, ragged rows, K that is not whole blocks.
class GemmSm80 : public testing::TestWithParam<Sm80Format> {};
TEST_P(GemmSm80, OneToken) { check(GetParam(), {256, 512, 64, 128, 1}); }
TEST_P(GemmSm80, EightTokens) { check(GetParam(), {200, 384, 128, 128, 8}); }
TEST_P(GemmSm80, SeventeenTokens) { check(GetParam(), {333, 640, 192, 128, 17}); }
TEST_P(GemmSm80, ManyTokens) { check(GetParam(), {192, 384, 96, 128, 129}); }
TEST_P(GemmSm80, SeveralTiles) { check(GetParam(), {264, 256, 64, 128, 260}); }
TEST_P(GemmSm80, NoOutliers) { check(GetParam(), {128, 256, 0, 128, 40}); }
TEST_P(GemmSm80, OneBlock) { check(GetParam(), {64, 128, 0, 128, 65}); }
TEST_P(GemmSm80, WideGroup) { check(GetParam(), {128, 512, 64, 256, 33}); }
TEST_P(GemmSm80, Halves) { check(GetParam(), {130, 256, 64, 128, 70, DType::kF16}); }
TEST_P(GemmSm80, Bias) { check(GetParam(), {130, 256, 64, 128, 5, DType::kF32, true}); }
TEST_P(GemmSm80, Accumulate) {
  check(GetParam(), {130, 256, 64, 128, 35, DType::kF32, true, true});
}
INSTANTIATE_TEST_SUITE_P(Formats, GemmSm80,
                         testing::Values(Sm80Format::kW4A8, Sm80Format::kW4A4, Sm80Format::kFp4,
                                         Sm80Format::kNvFp4),
                         [](const auto& format) {
                           return format.param == Sm80Format::kW4A8   ? "W4A8"
                                  : format.param == Sm80Format::kW4A4 ? "W4A4"
                                  : format.param == Sm80Format::kFp4  ? "Fp4"
                                                                      : "NvFp4";
                         });

TEST(GemmSm80W4A8, Group64) { check(Sm80Format::kW4A8, {96, 320, 64, 64, 20}); }
TEST(GemmSm80W4A8, Group32BodyNotWholeBlocks) { check(Sm80Format::kW4A8, {96, 544, 32, 32, 20}); }
// Sums that would show a lost bit.
TEST(GemmSm80W4A4, LargestSumsAreExact) {
  check(Sm80Format::kW4A4,
        {.rows = 64, .body = 256, .outliers = 128, .group = 128, .tokens = 9, .largest = true});
}
TEST(GemmSm80Fp4, LargestSumsAreExact) {
  check(Sm80Format::kFp4,
        {.rows = 64, .body = 256, .outliers = 128, .group = 128, .tokens = 9, .largest = true});
}
TEST(GemmSm80NvFp4, BodyNotWholeBlocks) { check(Sm80Format::kNvFp4, {96, 176, 32, 128, 20}); }
TEST(GemmSm80NvFp4, RefusesOtherScales) {
  EXPECT_EQ(pack_nvfp4(random_fp4(64, 128, 0, 16, 1)).status().code(), ErrorCode::kUnsupported);
}
TEST(GemmSm80Fp4, RefusesMixedGrids) {
  PackedLinear p = random_fp4(64, 128, 0, 128, 1);
  p.format.act.grid = CodeGrid::kInt;
  EXPECT_EQ(pack_w4a4_s4(p).status().code(), ErrorCode::kUnsupported);
}
TEST(GemmSm80W4A4, RefusesShortGroups) {
  EXPECT_EQ(pack_w4a4_s4(random_grouped(64, 128, 0, 64, 1)).status().code(),
            ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace atom::cuda
