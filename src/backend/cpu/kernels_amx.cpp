// AVX-512 kernels with the integer linear of many tokens on AMX tiles.
#if defined(__x86_64__)
#include "backend/cpu/kernels.h"

namespace atom::cpu {
namespace {

inline constexpr int kBlockTokens = 8, kBlockPanels = 2;
inline constexpr int kProductRows = 6, kProductVectors = 4;
inline constexpr int kCodeRows = 4, kCodePages = 4;

}  // namespace
}  // namespace atom::cpu

#include "backend/cpu/kernels.inl"
#include "backend/cpu/linear_amx.inl"

namespace atom::cpu {

constinit const Kernels kAmxKernels = [] {
  Kernels kernels = all_kernels("amx");
  kernels.linear = linear_amx;
  kernels.linear_scratch_bytes = amx_scratch_bytes;
  return kernels;
}();

}  // namespace atom::cpu

#endif
