// What surrounds the NVFP4 GEMM of sm_100a runs on every chip: in its layout the quantizers, the
// way to experts and the reading of single weights give what they give in the other one.
#include <span>

#include "backend/cuda/experts/expert_kernels.h"
#include "backend/cuda/linear/linear_kernels.h"
#include "backend/cuda/objects.h"
#include "cuda/device_test.h"
#include "cuda/nvfp4_cases.h"

namespace atom::cuda {
namespace {

constexpr ChipKernels kOther = {}, kSm100a = {.tcgen05 = true};

std::unique_ptr<CudaActivations> make_activations(const PackedLinear& linear, int64_t tokens,
                                                  ChipKernels chip) {
  return CudaActivations::create(linear.format, linear.cols, tokens, chip).value();
}

std::unique_ptr<CudaActivations> quantized(const PackedLinear& linear, const float* x,
                                           int64_t tokens, ChipKernels chip) {
  std::unique_ptr<CudaActivations> y = make_activations(linear, tokens, chip);
  launch_quantize_rows({.x = x,
                        .tokens = static_cast<int>(tokens),
                        .channels = static_cast<int>(linear.cols),
                        .format = linear.format.act,
                        .outlier_kind = linear.format.weight.outlier_kind,
                        .body = static_cast<int>(y->body),
                        .group = static_cast<int>(y->group),
                        .places = y->places,
                        .codes = y->codes.data(),
                        .scales = y->scales.data(),
                        .outlier_scales = y->outlier_scales.data()},
                       nullptr);
  return y;
}

template <class Arrays, class Acts>
Arrays arrays_of(Acts& a) {
  return {.places = a.places,
          .codes = a.codes.data(),
          .scales = a.scales.data(),
          .outlier_scales = a.outlier_scales.data()};
}

void expect_same(const HostActivations& a, const HostActivations& b) {
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(a.scales, b.scales);
  EXPECT_EQ(a.outlier_scales, b.outlier_scales);
}

// Body columns that are not whole blocks, outliers in an odd number of blocks, tokens beyond a
// block of scales.
class NvFp4Inputs : public ::testing::TestWithParam<int> {
 protected:
  static constexpr int64_t kTokens = 150;
  const PackedLinear linear_ = random_nvfp4(200, 432, 144, GetParam(), 5, false);
  DeviceArray<float> random_rows() const {
    Random random(9);
    std::vector<float> x(static_cast<size_t>(kTokens * linear_.cols));
    for (float& v : x) v = static_cast<float>(random.normal());
    return to_device(x);
  }
};

TEST_P(NvFp4Inputs, Quantized) {
  const DeviceArray<float> x = random_rows();
  const auto other = quantized(linear_, x.data(), kTokens, kOther);
  const auto sm100a = quantized(linear_, x.data(), kTokens, kSm100a);
  ASSERT_EQ(other->places.layout, LinearLayout::kNvFp4);
  ASSERT_EQ(sm100a->places.layout, LinearLayout::kNvFp4Sm100a);
  expect_same(sm100a->to_host(kTokens), other->to_host(kTokens));
}

TEST_P(NvFp4Inputs, GatheredForExperts) {
  const DeviceArray<float> x = random_rows();
  const auto from = quantized(linear_, x.data(), kTokens, kSm100a);
  Random random(3);
  std::vector<int32_t> sources(2 * kTokens);
  for (int32_t& s : sources) s = static_cast<int32_t>(random.below(kTokens));
  const auto rows = std::ssize(sources);
  const auto to = make_activations(linear_, rows, kSm100a);
  const DeviceArray<int32_t> on_device = to_device(sources);
  launch_gather_routed({.sources = on_device.data(),
                        .rows = static_cast<int>(rows),
                        .from = arrays_of<ActivationArrays<true>>(std::as_const(*from)),
                        .to = arrays_of<ActivationArrays<false>>(*to),
                        .scale_count = 1},
                       nullptr);
  const HostActivations all = from->to_host(kTokens);
  HostActivations want;
  const auto take = [](auto& some, const auto& every, int64_t row, int64_t width) {
    some.insert(some.end(), every.begin() + row * width, every.begin() + (row + 1) * width);
  };
  for (const int32_t s : sources) {
    take(want.codes, all.codes, s, linear_.cols);
    take(want.scales, all.scales, s, from->groups);
    take(want.outlier_scales, all.outlier_scales, s, 1);
  }
  expect_same(to->to_host(rows), want);
}

TEST_P(NvFp4Inputs, SingleWeights) {
  std::vector<int32_t> ids(static_cast<size_t>(linear_.rows));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  const DeviceArray<int32_t> on_device = to_device(ids);
  const auto rows = [&](ChipKernels chip) {
    Staging staging(nullptr);
    const auto w = CudaLinear::create(linear_, chip, staging).value();
    PoisonedOutput y(linear_.rows * linear_.cols, DType::kF32);
    launch_embed({.w = w->view(),
                  .ids = on_device.data(),
                  .y = static_cast<float*>(y.data()),
                  .tokens = static_cast<int>(linear_.rows)},
                 nullptr);
    return y.values();
  };
  EXPECT_EQ(rows(kSm100a), rows(kOther));
}

INSTANTIATE_TEST_SUITE_P(Groups, NvFp4Inputs, ::testing::Values(16, 48),
                         [](const auto& group) { return std::to_string(group.param); });

}  // namespace
}  // namespace atom::cuda
