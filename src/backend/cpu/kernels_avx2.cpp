#if defined(__x86_64__)
#include "backend/cpu/kernels.h"

namespace atom::cpu {
namespace {

inline constexpr int kBlockTokens = 4, kBlockPanels = 1;
inline constexpr int kProductRows = 3, kProductVectors = 2;
inline constexpr int kCodeRows = 4, kCodePages = 1;

}  // namespace
}  // namespace atom::cpu

#include "backend/cpu/kernels.inl"

namespace atom::cpu {

// Initialised when compiled: nothing here may run before the machine is known.
constinit const Kernels kAvx2Kernels = all_kernels("avx2");

}  // namespace atom::cpu

#endif
