#include "quant/group_grid.h"

#include <algorithm>
#include <cmath>

#include "base/multiversion.h"
#include "ops/weight_grid.h"

namespace atom {
namespace {

constexpr int64_t R = kChunkRows;

void group_range(const float* w, int64_t columns, float* min, float* max) {
  for (int64_t r = 0; r < R; ++r) min[r] = max[r] = w[r];
  for (int64_t k = 1; k < columns; ++k) {
    for (int64_t r = 0; r < R; ++r) {
      min[r] = std::min(min[r], w[k * R + r]);
      max[r] = std::max(max[r], w[k * R + r]);
    }
  }
}

// error[r] = sum_k importance[k] * (w - value)^2 with value = code * scale + zero.
ATOM_MULTIVERSION void squared_error(const float* w, int64_t columns, const GroupGrid& grid,
                                     const float* importance, float* error) {
  for (int64_t r = 0; r < R; ++r) error[r] = 0.0f;
  const auto add = [&](auto code_of) __attribute__((always_inline)) {
    for (int64_t k = 0; k < columns; ++k) {
      const float weight = importance[k];
      const float* column = w + k * R;
      for (int64_t r = 0; r < R; ++r) {
        const float code = code_of((column[r] - grid.zero[r]) * grid.inverse[r]);
        const float miss = code * grid.scale[r] + grid.zero[r] - column[r];
        error[r] += weight * (miss * miss);
      }
    }
  };
  const float low = grid.low, high = grid.high;
  const auto clamped = [=](float x) __attribute__((always_inline)) {
    x = x < low ? low : x;
    return x > high ? high : x;
  };
  if (grid.codes == CodeGrid::kE2M1) {
    add([=](float x) __attribute__((always_inline)) { return numerics::nearest_e2m1(clamped(x)); });
  } else {
    add([=](float x) __attribute__((always_inline)) { return clamped(__builtin_rintf(x)); });
  }
}

// Rounds to F16, keeping tiny scales from vanishing while the group is not all zero.
float f16_scale(float scale) {
  const float limited = std::clamp(scale, -weight_grid::kLargestF16, weight_grid::kLargestF16);
  return weight_grid::kept_scale(scale, f16_to_f32(f32_to_f16(limited)));
}

void set_inverses(GroupGrid& grid) {
  for (int64_t r = 0; r < R; ++r) {
    grid.inverse[r] = grid.scale[r] == 0.0f ? 0.0f : 1.0f / grid.scale[r];
  }
}

}  // namespace

void choose_grouped_grid(const float* w, int64_t columns, const WeightQuantSpec& spec,
                         float divisor, const float* row_scale, const float* importance,
                         GroupGrid& grid) {
  const WeightFormat& format = spec.format.weight;
  grid.codes = format.grid;
  grid.high = static_cast<float>(largest_code(format.bits, format.grid));
  grid.low = static_cast<float>(smallest_code(format.bits, format.grid));
  alignas(64) float min[R], max[R];
  group_range(w, columns, min, max);
  const auto stored = [&](float scale, int64_t r) {
    return format.scales == GroupScales::kE4M3 ? weight_grid::e4m3_scale(scale, row_scale[r])
                                               : f16_scale(scale);
  };
  for (int64_t r = 0; r < R; ++r) grid.zero[r] = 0.0f;
  if (spec.scale_rule == ScaleRule::kAbsmax) {
    for (int64_t r = 0; r < R; ++r) {
      grid.scale[r] = stored(weight_grid::absmax_scale(min[r], max[r], spec.clip, divisor), r);
    }
    set_inverses(grid);
    return;
  }
  GroupGrid trial = grid;
  alignas(64) float error[R], best[R];
  const int step = format.grid == CodeGrid::kE2M1 ? 2 : 1;  // both signs are the same there
  for (int candidate = 0; candidate < weight_grid::kGroupedCandidates; candidate += step) {
    for (int64_t r = 0; r < R; ++r) {
      trial.scale[r] = stored(weight_grid::grouped_scale(min[r], max[r], grid.low, candidate), r);
    }
    set_inverses(trial);
    squared_error(w, columns, trial, importance, error);
    for (int64_t r = 0; r < R; ++r) {
      if (candidate > 0 && error[r] >= best[r]) continue;
      best[r] = error[r];
      grid.scale[r] = trial.scale[r];
    }
  }
  set_inverses(grid);
}

void choose_two_level_grid(const float* w, int64_t columns, const WeightQuantSpec& spec,
                           const float* row_scale, const float* importance, GroupGrid& grid) {
  grid.codes = CodeGrid::kInt;
  grid.low = 0;
  grid.high = 15;
  alignas(64) float min[R], max[R];
  group_range(w, columns, min, max);
  GroupGrid trial = grid;
  alignas(64) float error[R], best[R];
  const bool search = spec.scale_rule == ScaleRule::kSearch;
  for (int candidate = 0; candidate < (search ? weight_grid::kTwoLevelCandidates : 1);
       ++candidate) {
    for (int64_t r = 0; r < R; ++r) {
      const float unit = row_scale[r];
      const weight_grid::IntegerGrid chosen =
          weight_grid::two_level_grid(min[r], max[r], unit == 0.0f ? 0.0f : 1.0f / unit, candidate);
      trial.group_scale[r] = static_cast<uint8_t>(chosen.scale);
      trial.group_zero[r] = static_cast<int8_t>(chosen.zero);
      trial.scale[r] = chosen.scale * unit;
      trial.zero[r] = chosen.zero * unit;
    }
    set_inverses(trial);
    squared_error(w, columns, trial, importance, error);
    for (int64_t r = 0; r < R; ++r) {
      if (candidate > 0 && error[r] >= best[r]) continue;
      best[r] = error[r];
      grid.scale[r] = trial.scale[r];
      grid.zero[r] = trial.zero[r];
      grid.group_scale[r] = trial.group_scale[r];
      grid.group_zero[r] = trial.group_zero[r];
    }
  }
  set_inverses(grid);
}

void round_column(const float* w, const GroupGrid& grid, float* codes, float* values) {
  for (int64_t r = 0; r < R; ++r) {
    codes[r] = weight_grid::weight_code(w[r], grid.zero[r], grid.inverse[r], grid.low, grid.high,
                                        grid.codes);
    values[r] = codes[r] * grid.scale[r] + grid.zero[r];
  }
}

}  // namespace atom
