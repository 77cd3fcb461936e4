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

namespace atom::cpu {

// Initialised when compiled: nothing here may run before the machine is known.
constinit const Kernels kAvx512Kernels = all_kernels("avx512-vnni");

}  // namespace atom::cpu

#endif
