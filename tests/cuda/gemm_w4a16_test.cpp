// The w4a16 GEMM against products in double of the same quantized weights and the same halves:
// every kernel of the tables, whole and split, and the layouts of weights and activations.
#include <numeric>

#include "backend/cuda/experts/grouped_gemm.h"
#include "backend/cuda/gemm/gemm.h"
#include "backend/cuda/gemm/w4a16_layout.h"
#include "cuda/device_test.h"
#include "cuda/gemm_cases.h"
#include "cuda/packed_blocks.h"

namespace atom::cuda {
namespace {

// Weights are rounded to F16 once, 2^-12 of each at most: 3e-8 of the power of a product of
// independent terms, beside the 4e-8 of an F16 output.
constexpr double kWeightLimit = 1e-7;
double limit(DType type) { return kWeightLimit + nmse_limit(type); }

struct Case {
  int64_t rows, cols, group, tokens;
  DType type = DType::kF16;
  bool bias = false, accumulate = false;
  float scale = 1;     // that all scales of every other row are multiplied by
  bool gated = false;  // y = silu(gate) * up
};

PackedLinear random_weights(const Case& c, uint64_t seed, bool bias) {
  PackedLinear p = random_grouped(c.rows, c.cols, 0, c.group, seed, bias);
  p.format.act = {};
  for (size_t i = 0; i < p.scales.size(); ++i) {
    if (static_cast<int64_t>(i) / p.groups() % 2 == 0) continue;
    p.scales[i] = f32_to_f16(f16_to_f32(p.scales[i]) * c.scale);
  }
  return p;
}

std::vector<uint16_t> random_halves(int64_t count, uint64_t seed) {
  Random random(seed);
  std::vector<uint16_t> x(static_cast<size_t>(count));
  for (uint16_t& half : x) half = f32_to_f16(static_cast<float>(random.normal()));
  return x;
}

// In the kernel's layout: zeros behind the last column, NaN where no token stands.
std::vector<uint16_t> lay_out(const std::vector<uint16_t>& x, int64_t tokens, int64_t cols,
                              const w4a8::Shape& shape, int64_t capacity) {
  const int64_t padded = int64_t{shape.body_blocks} * w4a8::kBlockCols;
  std::vector<uint16_t> out(static_cast<size_t>(capacity * padded), 0x7e00);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t k = 0; k < padded; ++k) {
      out[static_cast<size_t>(w4a16::activation_place(t, k, capacity))] =
          k < cols ? x[static_cast<size_t>(t * cols + k)] : uint16_t{0};
    }
  }
  return out;
}

// y of tokens first .. end - 1.
std::vector<double> product(const PackedLinear& p, const std::vector<uint16_t>& x, int64_t first,
                            int64_t end) {
  std::vector<double> y(static_cast<size_t>((end - first) * p.rows));
  std::vector<double> floats;
  for (int64_t i = first * p.cols; i < end * p.cols; ++i) {
    floats.push_back(f16_to_f32(x[static_cast<size_t>(i)]));
  }
#pragma omp parallel for
  for (int64_t n = 0; n < p.rows; ++n) {
    std::vector<double> w(static_cast<size_t>(p.cols));
    for (int64_t k = 0; k < p.cols; ++k) {
      w[static_cast<size_t>(k)] =
          double{f16_to_f32(
              p.scales[static_cast<size_t>(n * p.groups() + k / (p.cols / p.groups()))])} *
          signed_nibble(p.codes.data() + n * (p.cols / 2), k);
    }
    for (int64_t t = 0; t < end - first; ++t) {
      y[static_cast<size_t>(t * p.rows + n)] =
          std::inner_product(w.begin(), w.end(), floats.begin() + t * p.cols,
                             p.bias.empty() ? 0.0 : p.bias[static_cast<size_t>(n)]);
    }
  }
  return y;
}

GemmArgs args_of(const Case& c, const w4a8::Shape& shape, int64_t tokens, int64_t capacity,
                 const DeviceArray<uint16_t>& x, DeviceArray<uint8_t>& workspace) {
  return {.format = GemmFormat::kW4A16,
          .rows = c.rows,
          .tokens = tokens,
          .capacity = capacity,
          .shape = shape,
          .x = reinterpret_cast<const int8_t*>(x.data()),
          .y_type = c.type,
          .accumulate = c.accumulate,
          .gated = c.gated,
          .workspace = workspace.data()};
}

DeviceArray<uint8_t> make_workspace() {
  auto workspace = DeviceArray<uint8_t>::allocate(gemm_workspace_bytes()).value();
  workspace.fill_bytes(0);
  return workspace;
}

// Runs every kernel of the table that the case allows, whole and split, twice each.
void check(const Case& c) {
  Case part = c;
  if (c.gated) part.rows /= 2;
  PackedLinear linear = random_weights(part, static_cast<uint64_t>(1 + c.rows), c.bias), up;
  if (c.gated) up = random_weights(part, 99, c.bias);
  ASSERT_TRUE(validate(linear).ok()) << validate(linear).message();
  const std::vector<uint16_t> x = random_halves(c.tokens * c.cols, 5);
  std::vector<double> want = product(c.gated ? concatenated(linear, up) : linear, x, 0, c.tokens);
  std::vector<float> before;
  if (c.accumulate) {
    for (const uint16_t half : random_halves(c.tokens * c.rows, 3)) {
      before.push_back(f16_to_f32(half));
    }
    for (size_t i = 0; i < want.size(); ++i) want[i] += before[i];
  }
  if (c.gated) {
    want = gated(want, c.tokens);
    linear = interleaved(linear, up);
  }
  const GemmWeights packed = pack_all(pack_w4a16(linear).value());
  const w4a8::Shape shape = w4a8_shape(linear.format.weight, linear.cols);
  const int64_t capacity = (c.tokens + 255) / 256 * 256;
  const auto weights = to_device(packed.blocks);
  const auto row_scales = to_device(packed.row_scales);
  const auto acts = to_device(lay_out(x, c.tokens, c.cols, shape, capacity));
  const auto bias = to_device(linear.bias);
  auto workspace = make_workspace();
  GemmArgs args = args_of(c, shape, c.tokens, capacity, acts, workspace);
  args.weights = weights.data();
  args.row_scales = row_scales.data();
  args.bias = c.bias ? bias.data() : nullptr;
  int ran = 0;
  for (int kernel = 0; kernel < gemm_kernel_count(args.format); ++kernel) {
    for (const bool split : {false, true}) {
      // Twice, the workspace as the first left it.
      for (int round = 0; round < 2; ++round) {
        PoisonedOutput y(std::ssize(want), c.type);
        if (c.accumulate) y.set(before);
        args.y = y.data();
        const Status status = launch_gemm(args, {.kernel = kernel, .split = split}, nullptr);
        if (status.code() == ErrorCode::kUnsupported) continue;
        ASSERT_TRUE(status.ok()) << status.message();
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        ++ran;
        const double error = nmse(y.values(), want);
        EXPECT_LE(error, (c.gated ? 3 : 1) * limit(c.type))  // of two sums that are multiplied
            << gemm_kernel_name(args.format, kernel) << (split ? " split" : "") << " N " << c.rows
            << " K " << c.cols << " M " << c.tokens << " round " << round;
        if (kernel == 0 && !split && round == 0)
          ::testing::Test::RecordProperty("nmse", fmt::format("{:.2e}", error));
      }
    }
  }
  EXPECT_GT(ran, 0);
}

TEST(GemmW4A16, WholeBlocks) { check({256, 1024, 128, 256}); }
TEST(GemmW4A16, OneBlock) { check({64, 128, 128, 64}); }
TEST(GemmW4A16, OneToken) { check({512, 2048, 128, 1}); }
TEST(GemmW4A16, ThreeTokens) { check({328, 640, 128, 3}); }
TEST(GemmW4A16, SeventeenTokens) { check({1000, 1408, 128, 17}); }
TEST(GemmW4A16, RaggedEverything) { check({777, 1152, 128, 129}); }
TEST(GemmW4A16, ManyTokens) { check({520, 768, 128, 1025}); }
TEST(GemmW4A16, SeveralTilesOfManyBlocks) { check({4096, 2432, 128, 256}); }
TEST(GemmW4A16, LongK) { check({192, 28672, 128, 33}); }
TEST(GemmW4A16, MoreTilesThanChips) { check({20480, 384, 128, 300}); }
TEST(GemmW4A16, WideGroup) { check({256, 1024, 256, 40}); }
TEST(GemmW4A16, OneGroupARow) { check({256, 608, 0, 40}); }
TEST(GemmW4A16, Group64) { check({576, 576, 64, 65}); }
TEST(GemmW4A16, Group32) { check({192, 544, 32, 20}); }
TEST(GemmW4A16, Group32OfManyTokens) { check({200, 544, 32, 300}); }
TEST(GemmW4A16, F32) { check({320, 512, 128, 200, DType::kF32}); }
TEST(GemmW4A16, Bias) { check({321, 512, 128, 70, DType::kF16, true}); }
TEST(GemmW4A16, Accumulate) { check({328, 512, 128, 70, DType::kF32, true, true}); }
TEST(GemmW4A16, AccumulateRaggedHalf) { check({333, 512, 128, 35, DType::kF16, false, true}); }
TEST(GemmW4A16, Gated) {
  for (const int64_t tokens : {1, 17, 129, 300}) {
    check({.rows = 784,
           .cols = 1152,
           .group = 128,
           .tokens = tokens,
           .bias = tokens == 129,
           .gated = true});
  }
}
// Scales whose products with codes are beyond F16, and subnormal ones.
TEST(GemmW4A16, LargeScales) { check({256, 512, 128, 20, DType::kF32, false, false, 3e6f}); }
TEST(GemmW4A16, SmallScales) { check({256, 512, 128, 20, DType::kF32, false, false, 1e-4f}); }

// Experts' tokens begin anywhere in a tile; one has none.
TEST(GemmW4A16, Experts) {
  for (const int64_t group : {128, 32}) {
    const Case c = {.rows = 200, .cols = 640, .group = group, .tokens = 0, .type = DType::kF32};
    const std::vector<int32_t> offsets = {0, 5, 5, 70, 83, 360};
    const int64_t tokens = offsets.back(), capacity = 512;
    const std::vector<uint16_t> x = random_halves(tokens * c.cols, 6);
    std::vector<DeviceArray<uint8_t>> blocks;
    std::vector<DeviceArray<float>> row_scales, biases;
    std::vector<WeightView> views;
    std::vector<double> want;
    w4a8::Shape shape;
    for (size_t e = 0; e + 1 < offsets.size(); ++e) {
      const PackedLinear linear = random_weights(c, 20 + e, e % 2 == 0);
      const auto part = product(linear, x, offsets[e], offsets[e + 1]);
      want.insert(want.end(), part.begin(), part.end());
      const GemmWeights packed = pack_all(pack_w4a16(linear).value());
      shape = w4a8_shape(linear.format.weight, linear.cols);
      blocks.push_back(to_device(packed.blocks));
      row_scales.push_back(to_device(packed.row_scales));
      biases.push_back(to_device(linear.bias));
      WeightView view;
      view.codes = blocks.back().data();
      view.row_scales = row_scales.back().data();
      view.bias = linear.bias.empty() ? nullptr : biases.back().data();
      views.push_back(view);
    }
    const auto device_views = to_device(views);
    const auto device_offsets = to_device(offsets);
    const auto acts = to_device(lay_out(x, tokens, c.cols, shape, capacity));
    auto workspace = make_workspace();
    GemmArgs args = args_of(c, shape, tokens, capacity, acts, workspace);
    const ExpertGroups experts = {.w = device_views.data(),
                                  .offsets = device_offsets.data(),
                                  .count = static_cast<int>(views.size()),
                                  .most_tokens = 277};
    int ran = 0;
    for (int kernel = 0; kernel < grouped_gemm_kernel_count(args.format); ++kernel) {
      for (const bool split : {false, true}) {
        PoisonedOutput y(c.rows * tokens, c.type);
        args.y = y.data();
        const Status status =
            launch_grouped_gemm(args, experts, {.kernel = kernel, .split = split}, nullptr);
        if (status.code() == ErrorCode::kUnsupported) continue;
        ASSERT_TRUE(status.ok()) << status.message();
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        ++ran;
        EXPECT_LE(nmse(y.values(), want), limit(c.type))
            << grouped_gemm_kernel_name(args.format, kernel) << (split ? " split" : "");
      }
    }
    EXPECT_GT(ran, 0);
  }
}

// Every code and scale is where the layout says.
TEST(PackW4A16, PutsEveryCodeAndScaleInItsPlace) {
  for (const int64_t group : {32, 64, 128}) {
    const Case c = {.rows = 200, .cols = 320 + group, .group = group, .tokens = 0, .scale = 1000};
    if (c.cols % group != 0) continue;
    const PackedLinear linear = random_weights(c, 9, false);
    const GemmWeights packed = pack_all(pack_w4a16(linear).value());
    const w4a8::Shape shape = w4a8_shape(linear.format.weight, linear.cols);
    for (int64_t n = 0; n < c.rows; ++n) {
      for (int64_t k = 0; k < c.cols; ++k) {
        const uint8_t* block = packed.blocks.data() + (n / 128 * shape.body_blocks + k / 128) *
                                                          w4a16::block_bytes(shape.groups);
        const auto row = static_cast<int>(n % 128), column = static_cast<int>(k % 128);
        const w4a16::Place place = w4a16::code_place(row % 64, column % 64);
        uint32_t word;
        std::memcpy(&word, block + w4a16::code_offset(column / 64, row, shape.groups) + place.byte,
                    4);
        const int code = static_cast<int>(std::rotr(word, place.bit) & 15) - w4a16::kZero;
        ASSERT_EQ(code, signed_nibble(linear.codes.data() + n * (c.cols / 2), k)) << n << " " << k;
        uint16_t scale;
        std::memcpy(&scale,
                    block + w4a16::scale_offset(column / (128 / shape.groups), row) +
                        w4a8::scale_place(row % 64),
                    2);
        const float unit = f16_to_f32(scale) * packed.row_scales[static_cast<size_t>(n)];
        ASSERT_EQ(unit * w4a16::kLowUnit,
                  f16_to_f32(linear.scales[static_cast<size_t>(n * linear.groups() + k / group)]));
      }
    }
  }
}
TEST(PackW4A16, RefusesQuantizedActivations) {
  EXPECT_EQ(pack_w4a16(random_grouped(64, 128, 0, 128, 1)).status().code(),
            ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace atom::cuda
