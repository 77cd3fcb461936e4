// Table entries of the tile shapes that are built.
#pragma once

#include "backend/cuda/gemm/kernel.cuh"

namespace atom::cuda::gemm {

template <class K>
void add(KernelEntry& entry, int groups) {
  entry.functions[groups] = reinterpret_cast<const void*>(&gemm_sm90a_kernel<K>);
  entry.shared_bytes[groups] = Layout<K>::kBytes;
}

// kAllGroups: also for groups of 32 and 64, which only small models need.
template <class F, class C, class Out, bool kAllGroups = false, bool kExperts = false>
KernelEntry entry(const char* name, int block_cycles, int end_cycles) {
  KernelEntry e{.name = name,
                .config = {C::warpgroups, C::row_blocks, C::tokens, C::ctas, C::cluster, C::share,
                           C::turns, C::producers, block_cycles, end_cycles},
                .functions = {},
                .shared_bytes = {}};
  add<Kernel<F, C, 1, Out, kExperts>>(e, 0);
  if constexpr (kAllGroups) {
    add<Kernel<F, C, 2, Out, kExperts>>(e, 1);
    add<Kernel<F, C, 4, Out, kExperts>>(e, 2);
  }
  return e;
}

}  // namespace atom::cuda::gemm
