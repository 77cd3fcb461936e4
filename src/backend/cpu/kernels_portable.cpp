#include "backend/cpu/kernels.h"

namespace atom::cpu {
namespace {

inline constexpr int kBlockTokens = 2, kBlockPanels = 1;
inline constexpr int kProductRows = 1, kProductVectors = 1;
inline constexpr int kCodeRows = 4, kCodePages = 1;

}  // namespace
}  // namespace atom::cpu

#include "backend/cpu/kernels.inl"

namespace atom::cpu {

// Initialised when compiled: nothing here may run before the machine is known.
constinit const Kernels kPortableKernels = all_kernels("portable");

}  // namespace atom::cpu
