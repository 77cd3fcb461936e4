// AVX-512 kernels with the integer linear of many tokens on AMX tiles.
#if defined(__x86_64__)
#include "backend/cpu/kernels.h"

namespace atom::cpu {
namespace {
// Tokens and panels whose sums fit the registers.
inline constexpr int kBlockTokens = 8, kBlockPanels = 2;
// Rows and vectors of a float product whose sums fit the registers.
inline constexpr int kProductRows = 6, kProductVectors = 4;
// Rows of queries and independent sums of each that meet a page's codes.
inline constexpr int kCodeRows = 4, kCodePages = 4;
}  // namespace
}  // namespace atom::cpu

#include "backend/cpu/attention.inl"
#include "backend/cpu/heads.inl"
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
    .expand_f16 = expand_f16,
    .expand_bf16 = expand_bf16,
    .float_rows = float_rows,
    .prepare_head = prepare_head,
    .quantize_kv = quantize_kv,
    .attend = attend,
};

}  // namespace atom::cpu

#endif
