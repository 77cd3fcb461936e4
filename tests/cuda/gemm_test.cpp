#include "backend/cuda/gemm/gemm.h"

#include "cuda/device_test.h"
#include "cuda/gemm_cases.h"
#include "cuda/packed_blocks.h"

namespace atom::cuda {
namespace {

struct Case {
  int64_t rows, body, outliers, group, tokens;
  DType type = DType::kF16;
  bool bias = false, accumulate = false;
  GemmFormat format = GemmFormat::kW4A8;
  bool asymmetric = false;    // w4a4: activation codes -15..15
  bool token_scales = false;  // w4a4: one scale a token
  bool largest = false;       // w4a4, fp4: sums as large as can be
  bool pairs = false;         // fp4: every weight's code times every activation's
  bool gated = false;         // y = silu(gate) * up
};

int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// Odd sums just below the largest, so that a lost bit shows.
void make_largest(PackedLinear& linear, PlainActivations& x) {
  for (auto& codes : linear.codes) codes = 0x88;
  for (size_t i = 0; i < x.codes.size(); ++i) x.codes[i] = i % 5 == 0 ? -14 : -15;
}

// Sums of 17,900 to 18,150, of both signs and both parities: 12 times 12, but for what one product
// of a block, its first or its last, adds to make it odd.
void make_fp4_largest(PackedLinear& linear, PlainActivations& x) {
  for (size_t i = 0; i < linear.codes.size(); ++i) {
    linear.codes[i] = i % 64 == 0 ? 0x71 : i % 64 == 63 ? 0x17 : 0x77;  // 1 12, 12 1, 12 12
  }
  for (int64_t t = 0; t < x.tokens; ++t) {
    for (int64_t k = 0; k < x.cols; ++k) {
      int code = (k + t) % 32 == 5 && t % 3 == 0 ? 8 : 12;
      if (k % 128 == 0) code = static_cast<int>(t % 2);
      if (k % 128 == 127) code = static_cast<int>(t / 2 % 2);
      x.codes[static_cast<size_t>(t * x.cols + k)] = static_cast<int8_t>(t % 5 == 4 ? -code : code);
    }
  }
}

// Row n: code n mod 16 in column n of the body's, the others 0. Token t: code t mod 16 throughout.
void make_pairs(PackedLinear& linear, PlainActivations& x) {
  std::ranges::fill(linear.codes, uint8_t{0});
  for (int64_t n = 0; n < linear.rows; ++n) {
    set_nibble(linear.codes.data() + n * (linear.body() / 2), n % linear.body(),
               static_cast<int>(n % 16));
  }
  for (int64_t t = 0; t < x.tokens; ++t) {
    std::fill_n(x.codes.begin() + t * x.cols, x.cols,
                static_cast<int8_t>(e2m1_code(static_cast<int>(t % 16))));
  }
}

// Runs every kernel of the table that the case allows, whole and split, twice each.
void check(const Case& c) {
  const bool fp4 = c.format == GemmFormat::kFp4, w4a4 = has_group_scales(c.format);
  const bool w8a8 = c.format == GemmFormat::kW8A8;
  const auto random_weights = [&](int64_t rows, uint64_t seed) {
    return w8a8 ? random_rows8(rows, c.body, seed, c.bias)
                : (fp4    ? random_fp4
                   : w4a4 ? random_grouped
                          : random_two_level)(rows, c.body, c.outliers, c.group, seed, c.bias);
  };
  const auto seed = static_cast<uint64_t>(1 + c.rows);
  PackedLinear linear = random_weights(c.gated ? c.rows / 2 : c.rows, seed), up;
  if (c.gated) up = random_weights(c.rows / 2, seed + 10);
  const auto act_seed = static_cast<uint64_t>(7 + c.tokens);
  const int64_t act_groups = w4a4 && !c.token_scales ? linear.groups() : 1;
  const int most = !w4a4 ? 127 : c.asymmetric ? 15 : 7;
  PlainActivations x =
      fp4 ? random_fp4_activations(c.tokens, c.body, c.outliers, act_seed, act_groups)
          : random_activations(c.tokens, c.body, c.outliers, act_seed,
                               w4a4 && !c.asymmetric ? -most - 1 : -most, most, act_groups);
  if (c.largest) (fp4 ? make_fp4_largest : make_largest)(linear, x);
  if (c.pairs) make_pairs(linear, x);
  ASSERT_TRUE(validate(linear).ok()) << validate(linear).message();
  std::vector<double> want = reference(c.gated ? concatenated(linear, up) : linear, x);
  std::vector<float> before;
  if (c.accumulate) {
    Random random(3);
    for (double& w : want) {
      before.push_back(f16_to_f32(f32_to_f16(static_cast<float>(random.normal()))));
      w += before.back();
    }
  }
  if (c.gated) {
    want = gated(want, c.tokens);
    linear = interleaved(linear, up);
  }

  const GemmWeights packed = pack_all((w8a8   ? pack_w8a8
                                       : w4a4 ? pack_w4a4
                                              : pack_w4a8)(linear)
                                          .value());
  const w4a8::Shape shape = w4a8_shape(linear.format.weight, linear.cols);
  const int64_t capacity = round_up(c.tokens, 256);
  std::vector<float> outlier_scales = x.outlier_scales;
  outlier_scales.resize(static_cast<size_t>(capacity), NAN);
  const auto weights = to_device(packed.blocks);
  const auto row_scales = to_device(packed.row_scales);
  const auto acts = to_device(lay_out(x, shape, capacity, c.format));
  const auto x_scales = to_device(lay_out_scales(x, shape, capacity, c.format));
  const auto x_outlier_scales = to_device(outlier_scales);
  const auto x_sums = to_device(body_sums(x, capacity));
  const auto bias = to_device(linear.bias);
  auto workspace = DeviceArray<uint8_t>::allocate(gemm_workspace_bytes()).value();
  workspace.fill_bytes(0);

  int ran = 0;
  for (int kernel = 0; kernel < gemm_kernel_count(c.format); ++kernel) {
    for (const bool split : {false, true}) {
      // Twice, the workspace as the first left it.
      for (int round = 0; round < 2; ++round) {
        PoisonedOutput y(std::ssize(want), c.type);
        if (c.accumulate) y.set(before);
        GemmArgs args{.format = c.format,
                      .rows = c.rows,
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
                      .accumulate = c.accumulate,
                      .gated = c.gated,
                      .workspace = workspace.data()};
        const Status status = launch_gemm(args, {.kernel = kernel, .split = split}, nullptr);
        if (status.code() == ErrorCode::kUnsupported) continue;
        ASSERT_TRUE(status.ok()) << status.message();
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        ++ran;
        EXPECT_LE(nmse(y.values(), want), nmse_limit(c.type))
            << gemm_kernel_name(c.format, kernel) << (split ? " split" : "") << " N " << c.rows
            << " K " << c.body << "+" << c.outliers << " M " << c.tokens << " round " << round;
      }
    }
  }
  EXPECT_GT(ran, 0);
}

TEST(GemmW4A8, WholeBlocks) { check({256, 1024, 128, 128, 256}); }
TEST(GemmW4A8, NoOutliers) { check({384, 512, 0, 128, 64}); }
TEST(GemmW4A8, OneToken) { check({512, 2048, 64, 128, 1}); }
TEST(GemmW4A8, ThreeTokens) { check({328, 640, 128, 128, 3}); }
TEST(GemmW4A8, SeventeenTokens) { check({1000, 1408, 64, 128, 17}); }
TEST(GemmW4A8, RaggedEverything) { check({777, 1152, 96, 128, 129}); }
TEST(GemmW4A8, ManyTokens) { check({520, 768, 128, 128, 1025}); }
TEST(GemmW4A8, SeveralTilesOfManyBlocks) { check({4096, 2432, 128, 128, 256}); }
TEST(GemmW4A8, ManyOutliers) { check({192, 256, 448, 128, 200}); }
TEST(GemmW4A8, LongK) { check({192, 28672 - 128, 128, 128, 33}); }
TEST(GemmW4A8, MoreTilesThanChips) { check({20480, 384, 128, 128, 300}); }
TEST(GemmW4A8, ThreeOutlierBlocks) { check({320, 512, 192, 128, 150}); }
TEST(GemmW4A8, WideGroup) { check({256, 1024, 64, 256, 40}); }
TEST(GemmW4A8, Group64) { check({576, 512, 64, 64, 65}); }
TEST(GemmW4A8, Group32BodyNotWholeBlocks) { check({192, 544, 32, 32, 20}); }
TEST(GemmW4A8, F32) { check({320, 512, 64, 128, 70, DType::kF32}); }
TEST(GemmW4A8, Bias) { check({321, 512, 64, 128, 70, DType::kF16, true}); }
TEST(GemmW4A8, Accumulate) { check({328, 512, 64, 128, 70, DType::kF32, true, true}); }
TEST(GemmW4A8, AccumulateRaggedHalf) { check({333, 512, 64, 128, 35, DType::kF16, false, true}); }

// As above, w8a8: rows, columns, tokens.
void check_w8a8(int64_t rows, int64_t cols, int64_t tokens, DType type = DType::kF16,
                bool bias = false, bool accumulate = false) {
  check({.rows = rows,
         .body = cols,
         .outliers = 0,
         .group = 0,
         .tokens = tokens,
         .type = type,
         .bias = bias,
         .accumulate = accumulate,
         .format = GemmFormat::kW8A8});
}
TEST(GemmW8A8, WholeBlocks) { check_w8a8(256, 1024, 256); }
TEST(GemmW8A8, OneToken) { check_w8a8(512, 2048, 1); }
TEST(GemmW8A8, ThreeTokens) { check_w8a8(328, 640, 3); }
TEST(GemmW8A8, SeventeenTokens) { check_w8a8(1000, 1408, 17); }
TEST(GemmW8A8, RaggedEverything) { check_w8a8(777, 1100, 129); }
TEST(GemmW8A8, ManyTokens) { check_w8a8(520, 768, 1025); }
TEST(GemmW8A8, LongK) { check_w8a8(192, 28672, 33); }
TEST(GemmW8A8, MoreTilesThanChips) { check_w8a8(20480, 384, 300); }
TEST(GemmW8A8, F32) { check_w8a8(320, 512, 70, DType::kF32); }
TEST(GemmW8A8, Bias) { check_w8a8(321, 512, 70, DType::kF16, true); }
TEST(GemmW8A8, Accumulate) { check_w8a8(328, 512, 70, DType::kF32, true, true); }

// As above, formats whose body has a scale a group on both sides.
class GemmGroups : public ::testing::TestWithParam<GemmFormat> {
 protected:
  void check_groups(Case c) const {
    c.format = GetParam();
    check(c);
  }
};
TEST_P(GemmGroups, WholeBlocks) { check_groups({256, 1024, 128, 128, 256}); }
TEST_P(GemmGroups, NoOutliers) { check_groups({384, 512, 0, 128, 64}); }
TEST_P(GemmGroups, OneToken) { check_groups({512, 2048, 64, 128, 1}); }
TEST_P(GemmGroups, ThreeTokens) { check_groups({328, 640, 128, 128, 3}); }
TEST_P(GemmGroups, SeventeenTokens) { check_groups({1000, 1408, 64, 128, 17}); }
TEST_P(GemmGroups, RaggedEverything) { check_groups({777, 1152, 96, 128, 129}); }
TEST_P(GemmGroups, ManyTokens) { check_groups({520, 768, 128, 128, 1025}); }
TEST_P(GemmGroups, SeveralTilesOfManyBlocks) { check_groups({4096, 2432, 128, 128, 256}); }
TEST_P(GemmGroups, ThreeOutlierBlocks) { check_groups({320, 512, 192, 128, 150}); }
TEST_P(GemmGroups, WideGroup) { check_groups({256, 1024, 64, 256, 40}); }
TEST_P(GemmGroups, WholeBodyGroup) { check_groups({256, 640, 64, 0, 40}); }
TEST_P(GemmGroups, Group64) { check_groups({576, 512, 64, 64, 65}); }
TEST_P(GemmGroups, Group32BodyNotWholeBlocks) { check_groups({192, 544, 32, 32, 20}); }
TEST_P(GemmGroups, OneScaleAToken) {
  check_groups(
      {.rows = 320, .body = 512, .outliers = 64, .group = 128, .tokens = 70, .token_scales = true});
}
TEST_P(GemmGroups, LargestSumsAreExact) {
  check_groups({.rows = 192,
                .body = 384,
                .outliers = 0,
                .group = 128,
                .tokens = 200,
                .type = DType::kF32,
                .largest = true});
}
TEST_P(GemmGroups, F32) { check_groups({320, 512, 64, 128, 200, DType::kF32}); }
TEST_P(GemmGroups, Bias) { check_groups({321, 512, 64, 128, 70, DType::kF16, true}); }
TEST_P(GemmGroups, Accumulate) { check_groups({328, 512, 64, 128, 70, DType::kF32, true, true}); }
TEST_P(GemmGroups, AccumulateRaggedHalf) {
  check_groups({333, 512, 64, 128, 35, DType::kF16, false, true});
}
INSTANTIATE_TEST_SUITE_P(Formats, GemmGroups,
                         ::testing::Values(GemmFormat::kW4A4, GemmFormat::kFp4),
                         [](const auto& info) {
                           return info.param == GemmFormat::kFp4 ? "Fp4" : "W4A4";
                         });

TEST(GemmW4A4, AsymmetricGroup32) {
  check({.rows = 320,
         .body = 544,
         .outliers = 32,
         .group = 32,
         .tokens = 70,
         .format = GemmFormat::kW4A4,
         .asymmetric = true});
}
TEST(GemmFp4, EveryPairOfCodesInEveryColumn) {
  check({.rows = 256,
         .body = 128,
         .outliers = 0,
         .group = 128,
         .tokens = 32,
         .type = DType::kF32,
         .format = GemmFormat::kFp4,
         .pairs = true});
}

// Weights whose rows are gates and ups: every kernel of every table, tiles that end within y's
// channels and tokens, ends by clusters and by shares of K, a bias.
class GatedGemm : public ::testing::TestWithParam<GemmFormat> {
 protected:
  void check_gated(Case c) const {
    c.format = GetParam();
    c.gated = true;
    if (c.format == GemmFormat::kW8A8) c.outliers = c.group = 0;
    check(c);
  }
};
TEST_P(GatedGemm, WholeTiles) { check_gated({768, 1024, 128, 128, 256}); }
TEST_P(GatedGemm, OneToken) { check_gated({512, 2048, 64, 128, 1}); }
TEST_P(GatedGemm, SeventeenTokens) { check_gated({1008, 1408, 64, 128, 17}); }
TEST_P(GatedGemm, RaggedTiles) { check_gated({784, 1152, 96, 128, 129}); }
TEST_P(GatedGemm, ManyTokens) { check_gated({528, 768, 128, 128, 1025}); }
TEST_P(GatedGemm, MoreTilesThanChips) { check_gated({20480, 384, 128, 128, 300}); }
TEST_P(GatedGemm, Bias) { check_gated({336, 512, 64, 128, 70, DType::kF16, true}); }
INSTANTIATE_TEST_SUITE_P(Formats, GatedGemm,
                         ::testing::Values(GemmFormat::kW4A8, GemmFormat::kW8A8, GemmFormat::kW4A4,
                                           GemmFormat::kFp4),
                         [](const auto& info) {
                           switch (info.param) {
                             case GemmFormat::kW8A8:
                               return "W8A8";
                             case GemmFormat::kW4A4:
                               return "W4A4";
                             case GemmFormat::kFp4:
                               return "Fp4";
                             default:
                               return "W4A8";
                           }
                         });

// Biases that decide everything: what leaves F16 is its largest number, of either sign, and gates
// at the ends of the floats make zeros or themselves.
TEST(GatedProducts, SaturateAndNeverOverflow) {
  constexpr int64_t kChannels = 96;
  PackedLinear gate = random_two_level(kChannels, 128, 0, 128, 1, true), up = gate;
  for (PackedLinear* part : {&gate, &up}) {
    for (uint16_t& scale : part->row_scales) scale = 0;
  }
  const float pairs[][3] = {{300, 300, 65504},  {300, -300, -65504},  {1e30f, 1e30f, 65504},
                            {-1e30f, 5, -0.0f}, {-90, 1e4f, -0.0f},   {0, 1e30f, 0},
                            {20, 30, 600},      {-1, 1, -0.26894142f}};
  std::vector<double> want;
  for (int64_t k = 0; k < kChannels; ++k) {
    const auto& pair = pairs[k % std::ssize(pairs)];
    gate.bias[static_cast<size_t>(k)] = pair[0];
    up.bias[static_cast<size_t>(k)] = pair[1];
    want.push_back(pair[2]);
  }
  const PackedLinear linear = interleaved(gate, up);
  const GemmWeights packed = pack_all(pack_w4a8(linear).value());
  const w4a8::Shape shape = w4a8_shape(linear.format.weight, linear.cols);
  const PlainActivations x = random_activations(1, 128, 0, 2);
  const auto weights = to_device(packed.blocks);
  const auto row_scales = to_device(packed.row_scales);
  const auto acts = to_device(lay_out(x, shape, 256, GemmFormat::kW4A8));
  const auto x_scales = to_device(lay_out_scales(x, shape, 256, GemmFormat::kW4A8));
  const auto x_sums = to_device(body_sums(x, 256));
  const auto bias = to_device(linear.bias);
  PoisonedOutput y(kChannels, DType::kF16);
  const GemmArgs args{.rows = 2 * kChannels,
                      .tokens = 1,
                      .capacity = 256,
                      .shape = shape,
                      .weights = weights.data(),
                      .row_scales = row_scales.data(),
                      .x = acts.data(),
                      .x_scales = x_scales.data(),
                      .x_sums = x_sums.data(),
                      .bias = bias.data(),
                      .y = y.data(),
                      .gated = true};
  ASSERT_TRUE(launch_gemm(args, choose_gemm(args), nullptr).ok());
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const std::vector<float> got = y.values();
  for (size_t k = 0; k < want.size(); ++k) {
    EXPECT_NEAR(got[k], want[k], std::abs(want[k]) * 0x1p-10) << k;
  }
}

TEST(Gemm, NoTokensIsNoWork) {
  GemmArgs args;
  args.rows = 64;
  args.capacity = 256;
  EXPECT_TRUE(launch_gemm(args, {}, nullptr).ok());
}

TEST(PackW4A8, RefusesOtherWeights) {
  PackedLinear p = random_two_level(64, 128, 0, 128, 1);
  p.format.weight.kind = WeightKind::kGrouped;
  EXPECT_EQ(pack_w4a8(p).status().code(), ErrorCode::kUnsupported);
}
TEST(PackW8A8, RefusesGroups) {
  PackedLinear p = random_rows8(64, 128, 1);
  p.format.weight.group = 64;
  EXPECT_EQ(pack_w8a8(p).status().code(), ErrorCode::kUnsupported);
}
TEST(PackW4A4, RefusesWideActivations) {
  PackedLinear p = random_grouped(64, 128, 0, 128, 1);
  p.format.act.bits = 8;
  EXPECT_EQ(pack_w4a4(p).status().code(), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace atom::cuda
