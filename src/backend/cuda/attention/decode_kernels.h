// How a CTA of the decode kernels uses its shared memory.
#pragma once

#include <algorithm>

#include "backend/cuda/attention/attention_kernels.h"

namespace atom::cuda::attention {

// What the warps of a CTA merge: maxima and weights [warp][kGroup], sums [warp][group][DH].
constexpr int merged_bytes(int warps, int group, int head_dim) {
  return warps * (2 * kGroup + group * head_dim) * 4;
}

// What the CTAs of a cluster send each other: a barrier, then [rank][head] ends, then [rank][slice]
// sums: each CTA finishes a slice of the sums.
constexpr int slice_of(int head_dim, int heads, int cluster) {
  return (heads * head_dim + cluster - 1) / cluster;
}
constexpr int inbox_bytes(int head_dim, int heads, int cluster) {
  return cluster == 1 ? 0 : 16 + cluster * (heads * 8 + slice_of(head_dim, heads, cluster) * 4);
}

// What the CTA that merges `count` partial results in memory needs: whether it is that one, factors
// [count][head], and sums of four channels a thread.
constexpr int partials_scratch_bytes(int warps, int heads, int count) {
  return count == 1 ? 0 : 16 + (count * heads + 3) / 4 * 16 + 32 * warps * 16;
}

// Offsets. The rings come first, one a warp of `stages` records each, then their barriers; what
// warps merge takes the place of both.
struct DecodeMemory {
  int barriers;  // [warp][stage]
  int inbox;
  int bytes;

  constexpr DecodeMemory(int record_bytes, int head_dim, int group, int warps, int stages,
                         int cluster)
      : barriers(warps * stages * record_bytes),
        inbox(std::max(barriers + warps * stages * 8, merged_bytes(warps, group, head_dim))),
        bytes(inbox + inbox_bytes(head_dim, group, cluster)) {}
};

}  // namespace atom::cuda::attention
