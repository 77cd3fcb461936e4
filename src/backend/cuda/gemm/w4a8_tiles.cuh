// The tile shapes that are built: channels x tokens of a CTA's tile; x2: two CTAs on a
// multiprocessor.
#pragma once

#include <array>

#include "backend/cuda/gemm/w4a8_sm90a.cuh"

namespace atom::cuda::w4a8 {

template <class C, int kGroups, class Out>
void add(KernelEntry& entry, int groups) {
  entry.functions[groups] = reinterpret_cast<const void*>(&gemm_w4a8_sm90a_kernel<C, kGroups, Out>);
  entry.shared_bytes[groups] = Layout<C, kGroups, Out>::kBytes;
}

// kAllGroups: also for groups of 32 and 64, which only small models need.
template <class C, class Out, bool kAllGroups = false>
KernelEntry entry(const char* name, int block_cycles, int end_cycles) {
  KernelEntry e{.name = name,
                .config = {C::row_blocks, C::tokens, C::ctas, block_cycles, end_cycles},
                .functions = {},
                .shared_bytes = {}};
  add<C, 1, Out>(e, 0);
  if constexpr (kAllGroups) {
    add<C, 2, Out>(e, 1);
    add<C, 4, Out>(e, 2);
  }
  return e;
}

template <class Out>
std::array<KernelEntry, 2> large_tiles() {
  return {entry<Tile<1, 256, 4, 1>, Out>("128x256", 1060, 9700),
          entry<Tile<1, 128, 7, 1>, Out>("128x128", 690, 3600)};
}

template <class Out>
std::array<KernelEntry, 5> small_tiles() {
  return {entry<Tile<2, 64, 7, 1>, Out>("256x64", 1100, 4500),
          entry<Tile<1, 64, 10, 1>, Out, true>("128x64", 640, 2600),
          entry<Tile<1, 32, 7, 2>, Out>("128x32 x2", 560, 2000),
          entry<Tile<1, 16, 8, 2>, Out, true>("128x16 x2", 480, 2000),
          entry<Tile<1, 8, 9, 2>, Out>("128x8 x2", 440, 2000)};
}

}  // namespace atom::cuda::w4a8
