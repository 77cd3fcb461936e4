// The NVFP4 GEMM by sm_100a's tensor cores, on a GPU that has them.
#include "backend/cuda/gemm/nvfp4_sm100a.h"

#include <span>

#include "backend/cuda/gemm/nvfp4_sm100a_layout.h"
#include "cuda/device_test.h"
#include "cuda/nvfp4_cases.h"
#include "cuda/packed_blocks.h"

namespace atom::cuda {
namespace {

struct Case {
  int64_t rows, body, outliers, group, tokens;
  DType type = DType::kF32;
  bool bias = false, accumulate = false;
  uint64_t seed = 1;
};

// Codes and scales as the quantizers write them; garbage where no token is, zero behind the body
// and the outliers.
std::vector<int8_t> lay_out_blocks(const PlainActivations& x, const w4a8::Shape& shape,
                                   int64_t capacity) {
  using namespace nvfp4_sm100a;
  const int64_t start = outlier_start(shape, capacity), body = x.cols - x.outliers;
  std::vector<int8_t> out(static_cast<size_t>(start + shape.outlier_blocks * capacity * kRowBytes),
                          0x57);
  for (int64_t t = 0; t < x.tokens; ++t) {
    const int8_t* codes = x.codes.data() + t * x.cols;
    for (int64_t k = 0; k < shape.body_blocks * w4a8::kBlockCols; ++k) {
      const int64_t block = k / w4a8::kBlockCols;
      const auto in_block = static_cast<int>(k % w4a8::kBlockCols);
      auto& byte = out[static_cast<size_t>(activation_byte(block, t, in_block / 2, capacity))];
      const int code = k < body ? e2m1_bits(codes[k]) : 0;
      byte = static_cast<int8_t>(k % 2 == 0 ? code : (byte & 15) | code << 4);
      if (k % nvfp4::kGroup != 0) continue;
      const float scale =
          k < body ? x.scales[static_cast<size_t>(t * x.groups + k / (body / x.groups))] : 0.0f;
      out[static_cast<size_t>(
          activation_scale_byte(shape, block, t, in_block / nvfp4::kGroup, capacity))] =
          static_cast<int8_t>(e4m3_bits(scale / unit_of(t)));
    }
    for (int64_t k = 0; k < shape.outlier_blocks * w4a8::kOutlierCols; ++k) {
      out[static_cast<size_t>(start + activation_byte(k / w4a8::kOutlierCols, t,
                                                      static_cast<int>(k % w4a8::kOutlierCols),
                                                      capacity))] =
          k < x.outliers ? codes[body + k] : int8_t{0};
    }
  }
  return out;
}

// A linear and its inputs in GPU memory.
struct Problem {
  PackedLinear linear;
  PlainActivations x;
  int64_t capacity;
  w4a8::Shape shape;
  DeviceArray<uint8_t> weights;
  DeviceArray<float> row_scales, bias, x_scales, x_outlier_scales;
  DeviceArray<int8_t> acts;

  explicit Problem(const Case& c)
      : linear(random_nvfp4(c.rows, c.body, c.outliers, c.group, c.seed, c.bias)),
        x(random_fp4_activations(c.tokens, c.body, c.outliers, c.seed + 1, linear.groups())),
        capacity((c.tokens + 255) / 256 * 256),
        shape(w4a8_shape(linear.format.weight, linear.cols)) {
    make_scales_e4m3(x, c.seed + 2);
    const GemmWeights packed = pack_all(pack_nvfp4_sm100a(linear).value());
    std::vector<float> outlier_scales = x.outlier_scales;
    outlier_scales.resize(static_cast<size_t>(capacity), NAN);
    weights = to_device(packed.blocks);
    row_scales = to_device(packed.row_scales);
    bias = to_device(linear.bias);
    x_scales = to_device(lay_out_units(x, capacity));
    x_outlier_scales = to_device(outlier_scales);
    acts = to_device(lay_out_blocks(x, shape, capacity));
  }
  GemmArgs args(const Case& c, PoisonedOutput& y) const {
    return {.rows = c.rows,
            .tokens = c.tokens,
            .capacity = capacity,
            .shape = shape,
            .weights = weights.data(),
            .row_scales = row_scales.data(),
            .x = acts.data(),
            .x_scales = x_scales.data(),
            .x_outlier_scales = x_outlier_scales.data(),
            .bias = c.bias ? bias.data() : nullptr,
            .y = y.data(),
            .y_type = c.type,
            .accumulate = c.accumulate};
  }
  std::vector<double> want() const {
    PackedLinear plain = linear;
    plain.scales = f16_scales(linear);
    return reference(plain, x);
  }
};

class NvFp4Sm100a : public ::testing::Test {
 protected:
  void SetUp() override {
    if (device_info().major != 10 || device_info().minor != 0) {
      GTEST_SKIP() << "compute capability " << device_info().major << '.' << device_info().minor;
    }
  }
  static void check(const Case& c) {
    const Problem problem(c);
    std::vector<double> want = problem.want();
    PoisonedOutput y(c.rows * c.tokens, c.type);
    if (c.accumulate) {
      Random random(3);
      std::vector<float> before;
      for (double& w : want) {
        before.push_back(f16_to_f32(f32_to_f16(static_cast<float>(random.normal()))));
        w += before.back();
      }
      y.set(before);
    }
    launch_nvfp4_sm100a(problem.args(c, y), nullptr);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_LE(nmse(y.values(), want), nmse_limit(c.type));
  }
};

TEST_F(NvFp4Sm100a, OneToken) { check({256, 512, 64, 16, 1}); }
TEST_F(NvFp4Sm100a, EightTokens) { check({200, 384, 128, 16, 8}); }
TEST_F(NvFp4Sm100a, SeventeenTokens) { check({333, 640, 192, 16, 17}); }
TEST_F(NvFp4Sm100a, FullSmallTile) { check({128, 256, 64, 16, 32}); }
TEST_F(NvFp4Sm100a, LargeTile) { check({128, 256, 64, 16, 33}); }
TEST_F(NvFp4Sm100a, ManyTokens) { check({192, 384, 96, 16, 129}); }
TEST_F(NvFp4Sm100a, SeveralTiles) { check({264, 256, 64, 16, 260}); }
TEST_F(NvFp4Sm100a, RingGoesRound) { check({64, 2560, 128, 16, 70}); }
TEST_F(NvFp4Sm100a, SmallRingGoesRound) { check({64, 3200, 128, 16, 5}); }
TEST_F(NvFp4Sm100a, NoOutliers) { check({128, 256, 0, 16, 40}); }
TEST_F(NvFp4Sm100a, OneBlock) { check({64, 128, 0, 16, 65}); }
TEST_F(NvFp4Sm100a, WideGroup) { check({128, 512, 64, 32, 33}); }
TEST_F(NvFp4Sm100a, BodyNotWholeBlocks) { check({96, 176, 32, 16, 20}); }
TEST_F(NvFp4Sm100a, Halves) { check({130, 256, 64, 16, 70, DType::kF16}); }
TEST_F(NvFp4Sm100a, Bias) { check({130, 256, 64, 16, 5, DType::kF32, true}); }
TEST_F(NvFp4Sm100a, Accumulate) { check({130, 256, 64, 16, 35, DType::kF32, true, true}); }

// Two experts' weights in turn: runs of tokens that begin and end anywhere, two of them empty.
TEST_F(NvFp4Sm100a, Experts) {
  const Case c = {136, 256, 64, 16, 300};
  Case other = c;
  other.seed = 10;
  const Problem even(c), odd(other);
  const std::vector<int32_t> offsets = {0, 5, 5, 200, 260, 260, 300};
  const int count = static_cast<int>(offsets.size()) - 1;
  std::vector<WeightView> views(static_cast<size_t>(count));
  for (size_t e = 0; e < views.size(); ++e) {
    const Problem& problem = e % 2 == 0 ? even : odd;
    views[e].codes = problem.weights.data();
    views[e].row_scales = problem.row_scales.data();
  }
  // The inputs are even's for all.
  PackedLinear plain = odd.linear;
  plain.scales = f16_scales(odd.linear);
  const std::vector<double> of_even = even.want(), of_odd = reference(plain, even.x);
  std::vector<double> want;
  for (int64_t t = 0; t < c.tokens; ++t) {
    int expert = 0;
    while (offsets[static_cast<size_t>(expert) + 1] <= t) ++expert;
    const std::vector<double>& from = expert % 2 == 0 ? of_even : of_odd;
    want.insert(want.end(), from.begin() + t * c.rows, from.begin() + (t + 1) * c.rows);
  }
  const auto table = to_device(views);
  const auto starts = to_device(offsets);
  PoisonedOutput y(c.rows * c.tokens, c.type);
  launch_grouped_nvfp4_sm100a(
      even.args(c, y),
      {.w = table.data(), .offsets = starts.data(), .count = count, .most_tokens = 195}, nullptr);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_LE(nmse(y.values(), want), nmse_limit(c.type));
}

}  // namespace
}  // namespace atom::cuda
