#include "backend/cpu/page_angles.h"

#include <algorithm>

#include "ops/batch.h"

namespace atom::cpu {

// A table is known by its address, which another may have had before: those differ in what they say
// of position 1.
bool PageAngles::same(std::span<const float> cos_sin, int64_t rotary_dim,
                      int64_t prefix_tokens) const {
  if (cos_sin.data() != source_.data() || cos_sin.size() != source_.size() ||
      rotary_dim != rotary_dim_ || prefix_tokens != prefix_tokens_) {
    return false;
  }
  return std::equal(position_one_.data(), position_one_.data() + position_one_.size(),
                    cos_sin.data() + rotary_dim);
}

const float* PageAngles::of(std::span<const float> cos_sin, int64_t rotary_dim,
                            int64_t prefix_tokens, int64_t pages) {
  const int64_t positions = static_cast<int64_t>(cos_sin.size()) / rotary_dim;
  const int64_t page_size = kPageTokens * rotary_dim;
  if (!same(cos_sin, rotary_dim, prefix_tokens)) {
    source_ = cos_sin;
    rotary_dim_ = rotary_dim;
    prefix_tokens_ = prefix_tokens;
    pages_ = 0;
    const int64_t most = (positions - prefix_tokens + kPageTokens - 1) / kPageTokens;
    if (!position_one_.allocate(positions > 1 ? rotary_dim : 0) ||
        !angles_.allocate(std::max<int64_t>(most, 0) * page_size)) {
      std::abort();
    }
    std::copy_n(cos_sin.data() + rotary_dim, position_one_.size(), position_one_.data());
  }
  for (; pages_ < pages; ++pages_) {
    float* to = angles_.data() + pages_ * page_size;
    const int64_t first = prefix_tokens + pages_ * kPageTokens;
    const int64_t tokens = std::min(kPageTokens, positions - first);
    for (int64_t t = 0; t < tokens; ++t) {
      const float* from = cos_sin.data() + (first + t) * rotary_dim;
      for (int64_t i = 0; i < rotary_dim; ++i) to[i * kPageTokens + t] = from[i];
    }
  }
  return angles_.data();
}

}  // namespace atom::cpu
