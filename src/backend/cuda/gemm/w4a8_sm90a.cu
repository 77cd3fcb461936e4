// The w4a8 kernels for Hopper.
#include "backend/cuda/gemm/w4a8_sm90a.cuh"

namespace atom::cuda::w4a8 {
namespace {

template <class C, int kGroups, class Out>
void add(KernelEntry& entry, int groups, int type) {
  entry.functions[groups][type] =
      reinterpret_cast<const void*>(&gemm_w4a8_sm90a_kernel<C, kGroups, Out>);
  entry.shared_bytes[groups][type] = Layout<C, kGroups, Out>::kBytes;
}

template <class C, int kGroups>
void add_types(KernelEntry& entry, int groups) {
  add<C, kGroups, __half>(entry, groups, 0);
  add<C, kGroups, __nv_bfloat16>(entry, groups, 1);
  add<C, kGroups, float>(entry, groups, 2);
}

// all_groups: also for groups of 32 and 64, which only small models need.
template <class C, bool kAllGroups = false>
KernelEntry entry(const char* name) {
  KernelEntry e{.name = name, .config = C::kConfig, .functions = {}, .shared_bytes = {}};
  add_types<C, 1>(e, 0);
  if constexpr (kAllGroups) {
    add_types<C, 2>(e, 1);
    add_types<C, 4>(e, 2);
  }
  return e;
}

// Channels x tokens of a CTA's tile; CTAs that share x; CTAs on a multiprocessor.
const KernelEntry kTable[] = {
    entry<Tile<2, 128, 6, 1, 1>>("256x128"),      entry<Tile<2, 128, 6, 2, 1>>("256x128 c2"),
    entry<Tile<1, 256, 5, 1, 1>>("128x256"),      entry<Tile<1, 256, 5, 2, 1>>("128x256 c2"),
    entry<Tile<1, 128, 8, 1, 1>>("128x128"),      entry<Tile<1, 128, 8, 2, 1>>("128x128 c2"),
    entry<Tile<2, 64, 8, 1, 1>>("256x64"),        entry<Tile<1, 64, 10, 1, 1>, true>("128x64"),
    entry<Tile<1, 32, 7, 1, 2>>("128x32 x2"),     entry<Tile<1, 16, 8, 1, 2>, true>("128x16 x2"),
    entry<Tile<1, 8, 10, 1, 2>>("128x8 x2"),
};

}  // namespace

std::span<const KernelEntry> sm90a_kernels() { return kTable; }

}  // namespace atom::cuda::w4a8
