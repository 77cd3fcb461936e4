#include <type_traits>

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"
#include "ops/numerics.h"

namespace atom::cpu {
namespace {
// Tokens and panels whose sums fit the registers.
inline constexpr int kBlockTokens = 2, kBlockPanels = 1;
}  // namespace
}  // namespace atom::cpu

#include "backend/cpu/linear.inl"
#include "backend/cpu/rows.inl"

namespace atom::cpu {

const Kernels kPortableKernels = {
    .name = "portable",
    .gather = gather,
    .normalize = normalize,
    .silu_mul = silu_mul,
    .quantize_group = quantize_group,
    .linear = linear,
    .linear_scratch_bytes = nullptr,
};

}  // namespace atom::cpu
