// The GEMMs of a mixture of experts against each expert's exact sums: experts without tokens, runs
// of tokens that begin anywhere in a tile, every kernel of the tables, whole and split.
#include "backend/cuda/experts/grouped_gemm.h"

#include <numeric>

#include "backend/cuda/gemm/gemm_sm80.h"
#include "cuda/device_test.h"
#include "cuda/gemm_cases.h"
#include "cuda/packed_blocks.h"

namespace atom::cuda {
namespace {

struct Case {
  GemmFormat format;
  int64_t rows, body, outliers, group;
  std::vector<int32_t> counts;  // tokens of each expert
  DType type = DType::kF32;
  bool gated = false;  // y = silu(gate) * up
};

PlainActivations tokens_of(const PlainActivations& x, int64_t first, int64_t end) {
  const auto part = [&](const auto& all, int64_t each) {
    return std::vector(all.begin() + first * each, all.begin() + end * each);
  };
  PlainActivations out = x;
  out.tokens = end - first;
  out.codes = part(x.codes, x.cols);
  out.scales = part(x.scales, x.groups);
  out.outlier_scales = part(x.outlier_scales, 1);
  return out;
}

// Experts' weights on the GPU, and what they make of their tokens.
struct Problem {
  std::vector<DeviceArray<uint8_t>> blocks;
  std::vector<DeviceArray<float>> row_scales, biases;
  DeviceArray<WeightView> views;
  DeviceArray<int32_t> offsets, x_sums;
  DeviceArray<int8_t> codes;
  DeviceArray<float> x_scales, x_outlier_scales;
  DeviceArray<uint8_t> workspace;
  GemmArgs args;
  ExpertGroups groups;
  std::vector<double> want;

  explicit Problem(const Case& c) {
    const bool fp4 = c.format == GemmFormat::kFp4, w4a4 = has_group_scales(c.format);
    std::vector<int32_t> starts(c.counts.size() + 1);
    std::partial_sum(c.counts.begin(), c.counts.end(), starts.begin() + 1);
    const int64_t tokens = starts.back(), capacity = (tokens + 255) / 256 * 256;
    PlainActivations x;
    std::vector<WeightView> host_views;
    for (size_t e = 0; e < c.counts.size(); ++e) {
      const auto random_weights = [&](int64_t rows, uint64_t seed) {
        return (fp4    ? random_fp4
                : w4a4 ? random_grouped
                       : random_two_level)(rows, c.body, c.outliers, c.group, seed, e % 2 == 0);
      };
      PackedLinear linear = random_weights(c.gated ? c.rows / 2 : c.rows, 1 + e), up;
      if (c.gated) up = random_weights(c.rows / 2, 100 + e);
      if (e == 0) {
        args.shape = w4a8_shape(linear.format.weight, linear.cols);
        x = fp4 ? random_fp4_activations(tokens, c.body, c.outliers, 7, linear.groups())
                : random_activations(tokens, c.body, c.outliers, 7, w4a4 ? -8 : -127,
                                     w4a4 ? 7 : 127, w4a4 ? linear.groups() : 1);
      }
      std::vector<double> part = reference(c.gated ? concatenated(linear, up) : linear,
                                           tokens_of(x, starts[e], starts[e + 1]));
      if (c.gated) {
        part = gated(part, c.counts[e]);
        linear = interleaved(linear, up);
      }
      want.insert(want.end(), part.begin(), part.end());
      const GemmWeights packed = pack_all((w4a4 ? pack_w4a4 : pack_w4a8)(linear).value());
      blocks.push_back(to_device(packed.blocks));
      row_scales.push_back(to_device(packed.row_scales));
      biases.push_back(to_device(linear.bias));
      WeightView view;
      view.codes = blocks.back().data();
      view.row_scales = row_scales.back().data();
      view.bias = linear.bias.empty() ? nullptr : biases.back().data();
      host_views.push_back(view);
    }
    views = to_device(host_views);
    offsets = to_device(starts);
    codes = to_device(lay_out(x, args.shape, capacity, c.format));
    x_scales = to_device(lay_out_scales(x, args.shape, capacity, c.format));
    std::vector<float> scales = x.outlier_scales;
    scales.resize(static_cast<size_t>(capacity), NAN);
    x_outlier_scales = to_device(scales);
    x_sums = to_device(body_sums(x, capacity));
    workspace = DeviceArray<uint8_t>::allocate(gemm_workspace_bytes()).value();
    workspace.fill_bytes(0);
    args.format = c.format;
    args.rows = c.rows;
    args.tokens = tokens;
    args.capacity = capacity;
    args.x = codes.data();
    args.x_scales = x_scales.data();
    args.x_outlier_scales = c.outliers > 0 ? x_outlier_scales.data() : nullptr;
    args.x_sums = x_sums.data();
    args.y_type = c.type;
    args.gated = c.gated;
    args.workspace = workspace.data();
    groups = {.w = views.data(),
              .offsets = offsets.data(),
              .count = static_cast<int>(c.counts.size()),
              .most_tokens = *std::max_element(c.counts.begin(), c.counts.end())};
  }

  template <class Launch>
  void check(const char* name, const Launch& launch) {
    PoisonedOutput y(std::ssize(want), args.y_type);
    args.y = y.data();
    const Status status = launch();
    if (status.code() == ErrorCode::kUnsupported) return;
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_LE(nmse(y.values(), want), nmse_limit(args.y_type)) << name;
  }
};

void check(const Case& c) {
  Problem problem(c);
  for (int kernel = 0; kernel < grouped_gemm_kernel_count(c.format); ++kernel) {
    for (const bool split : {false, true}) {
      SCOPED_TRACE(split ? "split" : "whole");
      for (int round = 0; round < 2; ++round) {
        problem.check(grouped_gemm_kernel_name(c.format, kernel), [&] {
          return launch_grouped_gemm(problem.args, problem.groups,
                                     {.kernel = kernel, .split = split}, nullptr);
        });
      }
    }
  }
  if (has_group_scales(c.format)) return;  // mma.sync has a layout of its own
  if (c.gated) return;                     // and does not gate
  problem.check("mma.sync", [&] {
    return launch_grouped_gemm_sm80(Sm80Format::kW4A8, problem.args, problem.groups, nullptr);
  });
}

class GroupedGemm : public testing::TestWithParam<GemmFormat> {};

TEST_P(GroupedGemm, OneTokenToTwoExperts) {
  check({GetParam(), 384, 1024, 64, 128, {0, 0, 1, 0, 0, 1, 0, 0}});
}
TEST_P(GroupedGemm, AnExpertEach) {
  check({GetParam(), 256, 512, 128, 128, {1, 1, 1, 1, 1, 1, 1, 1}, DType::kF16});
}
TEST_P(GroupedGemm, StartsAnywhereInATile) {
  check({GetParam(), 328, 640, 64, 128, {3, 0, 17, 1, 30, 0, 14, 5}});
}
TEST_P(GroupedGemm, SeveralTilesAnExpert) {
  check({GetParam(), 520, 384, 128, 128, {301, 77, 0, 129, 1, 516}, DType::kF16});
}
TEST_P(GroupedGemm, AllToOneExpert) { check({GetParam(), 192, 256, 0, 128, {0, 270, 0}}); }
TEST_P(GroupedGemm, OneExpertAlone) { check({GetParam(), 192, 256, 64, 128, {70}}); }
TEST_P(GroupedGemm, RaggedRows) { check({GetParam(), 333, 512, 64, 128, {9, 40, 2}}); }
TEST_P(GroupedGemm, LongK) { check({GetParam(), 256, 14336 - 128, 128, 128, {2, 0, 5, 1}}); }
TEST_P(GroupedGemm, ManyTilesOfManyBlocks) {
  check({GetParam(), 4096, 1024, 128, 128, {40, 90, 7, 0, 60, 33, 129, 41}});
}
TEST_P(GroupedGemm, Group32) { check({GetParam(), 192, 544, 32, 32, {20, 3, 0, 50}}); }
TEST_P(GroupedGemm, ManyExperts) {
  std::vector<int32_t> counts(256);
  for (size_t e = 0; e < counts.size(); ++e) counts[e] = static_cast<int32_t>(e * 7 % 5);
  check({GetParam(), 64, 256, 64, 128, counts});
}
TEST_P(GroupedGemm, Gated) {
  check({GetParam(), 336, 640, 64, 128, {3, 0, 17, 1, 30, 0, 14, 301, 5}, DType::kF16, true});
  check({GetParam(), 256, 512, 128, 128, {1, 1, 1, 1, 1, 1, 1, 1}, DType::kF16, true});
}
INSTANTIATE_TEST_SUITE_P(Formats, GroupedGemm,
                         testing::Values(GemmFormat::kW4A8, GemmFormat::kW4A4, GemmFormat::kFp4),
                         [](const auto& format) {
                           return format.param == GemmFormat::kW4A8   ? "W4A8"
                                  : format.param == GemmFormat::kW4A4 ? "W4A4"
                                                                      : "Fp4";
                         });

}  // namespace
}  // namespace atom::cuda
