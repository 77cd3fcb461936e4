// AVX-512 kernels with the integer linear of many tokens on AMX tiles.
#if defined(__x86_64__)
#include <type_traits>

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"
#include "ops/numerics.h"

namespace atom::cpu {
namespace {
// Tokens and panels whose sums fit the registers.
inline constexpr int kBlockTokens = 8, kBlockPanels = 2;
}  // namespace
}  // namespace atom::cpu

#include "backend/cpu/linear.inl"
#include "backend/cpu/linear_amx.inl"
#include "backend/cpu/rows.inl"

namespace atom::cpu {

const Kernels kAmxKernels = {
    .name = "amx",
    .gather = gather,
    .normalize = normalize,
    .silu_mul = silu_mul,
    .quantize_group = quantize_group,
    .linear = linear_amx,
    .linear_scratch_bytes = amx_scratch_bytes,
};

}  // namespace atom::cpu

#endif
