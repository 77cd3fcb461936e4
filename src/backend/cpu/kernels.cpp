#include "backend/cpu/kernels.h"

#include "ops/numerics.h"

namespace atom::cpu {

CodeRange activation_range(float min, float max, const ActFormat& format, float clip_factor) {
  const numerics::GroupScale g =
      numerics::group_scale(min, max, format.bits, format.rule, format.clip * clip_factor);
  return {g.scale, g.inverse, static_cast<float>(g.low), static_cast<float>(g.high)};
}

}  // namespace atom::cpu
