#include "backend/cpu/kernels.h"

#include "ops/numerics.h"

namespace atom::cpu {

CodeRange activation_range(float min, float max, const ActFormat& format, float clip_factor,
                           float unit) {
  const numerics::GroupScale g = numerics::group_scale(
      min, max, format.bits, format.rule, format.clip * clip_factor, format.grid, unit);
  return {g.scale, g.inverse, static_cast<float>(g.low), static_cast<float>(g.high), g.grid};
}

KvRange kv_range(float min, float max, int bits) {
  const numerics::KvScale s = numerics::kv_scale(min, max, bits);
  const float scale = f16_to_f32(s.scale);
  return {s.scale, s.min, f16_to_f32(s.min), scale == 0.0f ? 0.0f : 1.0f / scale,
          static_cast<float>((1 << bits) - 1)};
}

}  // namespace atom::cpu
