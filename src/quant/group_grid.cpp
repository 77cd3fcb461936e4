#include "quant/group_grid.h"

#include <algorithm>
#include <cmath>

#include "base/multiversion.h"

namespace atom {
namespace {

constexpr int64_t R = kChunkRows;
// Ranges tried by a search, as shares of the group's own.
constexpr float kGroupedShares[] = {1.0f, 0.95f, 0.9f, 0.85f, 0.8f, 0.75f, 0.7f};
constexpr float kTwoLevelShares[] = {1.0f, 0.92f, 0.84f, 0.76f, 0.68f, 0.6f};

void group_range(const float* w, int64_t columns, float* min, float* max) {
  for (int64_t r = 0; r < R; ++r) min[r] = max[r] = w[r];
  for (int64_t k = 1; k < columns; ++k) {
    for (int64_t r = 0; r < R; ++r) {
      min[r] = std::min(min[r], w[k * R + r]);
      max[r] = std::max(max[r], w[k * R + r]);
    }
  }
}

// error[r] = sum_k importance[k] * (w - value)^2 with value = clamp(rint((w - zero) * inverse)) *
// scale + zero.
ATOM_MULTIVERSION void squared_error(const float* w, int64_t columns, const float* scale,
                                     const float* zero, const float* inverse, float low, float high,
                                     const float* importance, float* error) {
  for (int64_t r = 0; r < R; ++r) error[r] = 0.0f;
  for (int64_t k = 0; k < columns; ++k) {
    const float weight = importance[k];
    const float* column = w + k * R;
    for (int64_t r = 0; r < R; ++r) {
      float code = __builtin_rintf((column[r] - zero[r]) * inverse[r]);
      code = code < low ? low : code;
      code = code > high ? high : code;
      const float miss = code * scale[r] + zero[r] - column[r];
      error[r] += weight * (miss * miss);
    }
  }
}

// Rounds to F16, keeping tiny scales from vanishing while the group is not all zero.
float f16_scale(float scale) {
  const float rounded = f16_to_f32(f32_to_f16(std::clamp(scale, -65504.0f, 65504.0f)));
  if (rounded == 0.0f && scale != 0.0f) return scale > 0 ? 0x1p-24f : -0x1p-24f;
  return rounded;
}

void set_inverses(GroupGrid& grid) {
  for (int64_t r = 0; r < R; ++r) {
    grid.inverse[r] = grid.scale[r] == 0.0f ? 0.0f : 1.0f / grid.scale[r];
  }
}

}  // namespace

void choose_grouped_grid(const float* w, int64_t columns, const WeightQuantSpec& spec,
                         float divisor, const float* importance, GroupGrid& grid) {
  const int bits = spec.format.weight.bits;
  grid.high = static_cast<float>(qmax(bits));
  grid.low = bits == 8 ? -grid.high : -grid.high - 1;
  alignas(64) float min[R], max[R];
  group_range(w, columns, min, max);
  for (int64_t r = 0; r < R; ++r) grid.zero[r] = 0.0f;
  if (spec.scale_rule == ScaleRule::kAbsmax) {
    for (int64_t r = 0; r < R; ++r) {
      grid.scale[r] = f16_scale(std::max(max[r], -min[r]) * spec.clip / divisor);
    }
    set_inverses(grid);
    return;
  }
  GroupGrid trial = grid;
  alignas(64) float error[R], best[R];
  bool first = true;
  for (const float share : kGroupedShares) {
    for (const float sign : {1.0f, -1.0f}) {
      for (int64_t r = 0; r < R; ++r) {
        // sign +: the largest magnitude lands on the long side of the range (-8); sign -: on +7's
        // side, which clips it a little but uses a finer step for the rest.
        const float peak = max[r] >= -min[r] ? max[r] : min[r];
        trial.scale[r] = f16_scale(-sign * peak * share / -grid.low);
      }
      set_inverses(trial);
      squared_error(w, columns, trial.scale, trial.zero, trial.inverse, grid.low, grid.high,
                    importance, error);
      for (int64_t r = 0; r < R; ++r) {
        if (!first && error[r] >= best[r]) continue;
        best[r] = error[r];
        grid.scale[r] = trial.scale[r];
      }
      first = false;
    }
  }
  set_inverses(grid);
}

void choose_two_level_grid(const float* w, int64_t columns, const WeightQuantSpec& spec,
                           const float* row_scale, const float* importance, GroupGrid& grid) {
  grid.low = 0;
  grid.high = 15;
  alignas(64) float min[R], max[R];
  group_range(w, columns, min, max);
  GroupGrid trial = grid;
  alignas(64) float error[R], best[R];
  bool first = true;
  const bool search = spec.scale_rule == ScaleRule::kSearch;
  for (const float share : kTwoLevelShares) {
    // Zeros tried: the range's middle on the codes' middle; its lower end on code 0; its upper end
    // on code 15.
    for (int place = 0; place < (share == 1.0f ? 1 : 3); ++place) {
      for (int64_t r = 0; r < R; ++r) {
        const float unit = row_scale[r];
        const float inverse_unit = unit == 0.0f ? 0.0f : 1.0f / unit;
        const float low = min[r] * inverse_unit, high = max[r] * inverse_unit;
        const float exact = (high - low) / 15.0f;
        const float s =
            std::clamp(share == 1.0f ? std::ceil(exact) : std::rint(exact * share), 1.0f, 16.0f);
        float z = place == 0   ? std::rint((low + high) / 2 - 7.5f * s)
                  : place == 1 ? std::rint(low)
                               : std::rint(high - 15 * s);
        z = std::clamp(z, -128.0f, 127 - 15 * s);
        trial.group_scale[r] = static_cast<uint8_t>(s);
        trial.group_zero[r] = static_cast<int8_t>(z);
        trial.scale[r] = s * unit;
        trial.zero[r] = z * unit;
      }
      set_inverses(trial);
      squared_error(w, columns, trial.scale, trial.zero, trial.inverse, grid.low, grid.high,
                    importance, error);
      for (int64_t r = 0; r < R; ++r) {
        if (!first && error[r] >= best[r]) continue;
        best[r] = error[r];
        grid.scale[r] = trial.scale[r];
        grid.zero[r] = trial.zero[r];
        grid.group_scale[r] = trial.group_scale[r];
        grid.group_zero[r] = trial.group_zero[r];
      }
      first = false;
      if (!search) {
        set_inverses(grid);
        return;
      }
    }
  }
  set_inverses(grid);
}

void round_column(const float* w, const GroupGrid& grid, float* codes, float* values) {
  for (int64_t r = 0; r < R; ++r) {
    const float code = __builtin_rintf((w[r] - grid.zero[r]) * grid.inverse[r]);
    codes[r] = std::min(std::max(code, grid.low), grid.high);
    values[r] = codes[r] * grid.scale[r] + grid.zero[r];
  }
}

}  // namespace atom
