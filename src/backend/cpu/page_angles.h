// RoPE angles in the order in which attention rotates the keys of a page, for caches whose K stands
// before RoPE.
#pragma once

#include <cstdint>
#include <span>

#include "backend/cpu/aligned_buffer.h"

namespace atom::cpu {

// Made page by page as sequences grow, and kept: every layer of every step reads the same.
class PageAngles {
 public:
  // [page][R/2][2][16 tokens], R = rotary_dim: cosines and sines for the first `pages` pages of any
  // sequence. cos_sin: [positions, R/2, 2]; position prefix_tokens is the first page's first.
  const float* of(std::span<const float> cos_sin, int64_t rotary_dim, int64_t prefix_tokens,
                  int64_t pages);

 private:
  bool same(std::span<const float> cos_sin, int64_t rotary_dim, int64_t prefix_tokens) const;

  std::span<const float> source_;
  int64_t rotary_dim_ = 0, prefix_tokens_ = 0;
  AlignedBuffer<float> position_one_;  // of the source, [R]
  AlignedBuffer<float> angles_;
  int64_t pages_ = 0;  // that are made
};

}  // namespace atom::cpu
