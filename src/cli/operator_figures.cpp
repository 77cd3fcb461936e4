#include "cli/operator_figures.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "app/random_linear.h"

namespace atom::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kPastCaches = int64_t{256} << 20;  // bytes of weights, where there is a choice
constexpr int64_t kMostCopies = 16;
constexpr int64_t kOutliers = 128, kGroup = 128;

// The format that a group of kernels is for; none: there is no such linear.
std::optional<LinearFormat> linear_format_of(std::string_view group) {
  if (group == "f16") return LinearFormat{.weight = {.dtype = DType::kF16}, .act = {}};
  if (group == "w8a8") {
    return LinearFormat{.weight = {.kind = WeightKind::kGrouped, .bits = 8, .group = 0},
                        .act = {.quantized = true, .bits = 8, .group = 0}};
  }
  if (group == "w4a16") {
    return LinearFormat{.weight = {.kind = WeightKind::kGrouped, .bits = 4, .group = kGroup},
                        .act = {}};
  }
  const bool two_level = group == "w4a8", fp4 = group == "fp4";
  if (!two_level && !fp4 && group != "w4a4") return std::nullopt;
  const CodeGrid grid = fp4 ? CodeGrid::kE2M1 : CodeGrid::kInt;
  return LinearFormat{.weight = {.kind = two_level ? WeightKind::kTwoLevel : WeightKind::kGrouped,
                                 .bits = 4,
                                 .group = kGroup,
                                 .outliers = kOutliers,
                                 .outlier_kind = OutlierKind::kInt8,
                                 .grid = grid},
                      .act = {.quantized = true,
                              .bits = two_level ? 8 : 4,
                              .group = two_level ? 0 : kGroup,
                              .grid = grid}};
}

struct LinearTime {
  double us = 0, us_p10 = 0, us_p90 = 0;
  int64_t weight_bytes = 0;
};

Result<LinearTime> time_linear(Backend& backend, const LinearFormat& format, const KernelSize& size,
                               int samples) {
  Random random(1);
  const PackedLinear packed = ATOM_TRY(random_linear(format, size.rows, size.inputs, random));
  std::vector<std::unique_ptr<LinearWeights>> weights;
  const int64_t copies =
      std::clamp<int64_t>(kPastCaches / std::max<int64_t>(packed.bytes(), 1), 1, kMostCopies);
  for (int64_t i = 0; i < copies; ++i) weights.push_back(ATOM_TRY(backend.load_linear(packed)));
  std::vector<float> rows(static_cast<size_t>(size.tokens * size.inputs));
  for (float& value : rows) value = static_cast<float>(random.normal());
  const auto x = ATOM_TRY(backend.make_tensor(size.tokens, size.inputs));
  backend.write(*x, rows);
  const auto acts = ATOM_TRY(backend.make_activations(format, size.inputs, size.tokens));
  const auto y = ATOM_TRY(backend.make_tensor(size.tokens, size.rows));
  backend.quantize(*x, size.tokens, {}, *acts);
  std::vector<double> us;
  std::vector<float> row(static_cast<size_t>(size.rows));
  for (int i = -2; i < samples; ++i) {
    const auto start = Clock::now();
    backend.linear({.x = acts.get(),
                    .w = weights[static_cast<size_t>((i + 2) % copies)].get(),
                    .y = y.get(),
                    .tokens = size.tokens});
    if (i >= 0) {
      us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    }
  }
  backend.read(*y, 1, row);
  std::sort(us.begin(), us.end());
  const auto at = [&](size_t tenths) { return us[(us.size() - 1) * tenths / 10]; };
  return LinearTime{
      .us = at(5), .us_p10 = at(1), .us_p90 = at(9), .weight_bytes = weights.front()->bytes()};
}

}  // namespace

Status measure_linears(Backend& backend, const std::vector<std::string_view>& groups,
                       const std::vector<KernelSize>& sizes, int samples,
                       const std::function<Status(const KernelFigure&)>& each) {
  for (const std::string_view group : groups) {
    const std::optional<LinearFormat> format = linear_format_of(group);
    if (!format) continue;
    for (const KernelSize& size : sizes) {
      const LinearTime ours = ATOM_TRY(time_linear(backend, *format, size, samples));
      const LinearTime f16 =
          ATOM_TRY(time_linear(backend, *linear_format_of("f16"), size, samples));
      KernelFigure figure;
      figure.group = group;
      figure.problem = fmt::format("{}x{} M {}", size.rows, size.inputs, size.tokens);
      figure.kernel = backend.detail();
      figure.us = ours.us;
      figure.us_p10 = ours.us_p10;
      figure.us_p90 = ours.us_p90;
      figure.tops = 2e-6 * static_cast<double>(size.rows * size.inputs) *
                    static_cast<double>(size.tokens) / ours.us;
      const int64_t moved = ours.weight_bytes + size.tokens * (size.inputs + 4 * size.rows);
      figure.gbps = 1e-3 * static_cast<double>(moved) / ours.us;
      figure.baselines = {{.name = "f16", .us = f16.us}};
      ATOM_TRY(each(figure));
    }
  }
  return {};
}

}  // namespace atom::cli
