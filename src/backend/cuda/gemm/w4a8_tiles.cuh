// The tile shapes that are built: channels x tokens of a CTA's tile; pp: ping-pong; c2: two CTAs share x; x2: two
// CTAs on a multiprocessor.
#pragma once

#include <array>

#include "backend/cuda/gemm/w4a8_sm90a.cuh"

namespace atom::cuda::w4a8 {

template <class C, int kGroups, class Out>
void add(KernelEntry& entry, int groups) {
  entry.functions[groups] =
      reinterpret_cast<const void*>(&gemm_w4a8_sm90a_kernel<C, kGroups, Out>);
  entry.shared_bytes[groups] = Layout<C, kGroups, Out>::kBytes;
}

// kAllGroups: also for groups of 32 and 64, which only small models need.
template <class C, class Out, bool kAllGroups = false>
KernelEntry entry(const char* name) {
  KernelEntry e{.name = name, .config = C::kConfig, .functions = {}, .shared_bytes = {}};
  add<C, 1, Out>(e, 0);
  if constexpr (kAllGroups) {
    add<C, 2, Out>(e, 1);
    add<C, 4, Out>(e, 2);
  }
  return e;
}

template <class Out>
std::array<KernelEntry, 3> large_tiles() {
  return {entry<Tile<false, 1, 256, 4, 2, 1>, Out>("128x256 c2"),
          entry<Tile<false, 1, 256, 4, 1, 1>, Out>("128x256"),
          entry<Tile<false, 1, 128, 7, 1, 1>, Out>("128x128")};
}

template <class Out>
std::array<KernelEntry, 5> small_tiles() {
  return {entry<Tile<false, 2, 64, 7, 1, 1>, Out>("256x64"),
          entry<Tile<false, 1, 64, 10, 1, 1>, Out, true>("128x64"),
          entry<Tile<false, 1, 32, 7, 1, 2>, Out>("128x32 x2"),
          entry<Tile<false, 1, 16, 8, 1, 2>, Out, true>("128x16 x2"),
          entry<Tile<false, 1, 8, 9, 1, 2>, Out>("128x8 x2")};
}

}  // namespace atom::cuda::w4a8
