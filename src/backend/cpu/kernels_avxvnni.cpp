#if defined(__x86_64__)
#include "backend/cpu/kernels.h"

namespace atom::cpu {
namespace {
// Tokens and panels whose sums fit the registers.
inline constexpr int kBlockTokens = 4, kBlockPanels = 1;
// Rows and vectors of a float product whose sums fit the registers.
inline constexpr int kProductRows = 3, kProductVectors = 2;
// Rows of queries and independent sums of each that meet a page's codes.
inline constexpr int kCodeRows = 4, kCodePages = 1;
}  // namespace
}  // namespace atom::cpu

#include "backend/cpu/attention.inl"
#include "backend/cpu/heads.inl"
#include "backend/cpu/linear.inl"
#include "backend/cpu/rows.inl"

namespace atom::cpu {

const Kernels kAvxVnniKernels = {
    .name = "avx-vnni",
    .gather = gather,
    .normalize = normalize,
    .silu_mul = silu_mul,
    .quantize_group = quantize_group,
    .linear = linear,
    .linear_scratch_bytes = nullptr,
    .expand_f16 = expand_f16,
    .expand_bf16 = expand_bf16,
    .float_rows = float_rows,
    .prepare_head = prepare_head,
    .quantize_kv = quantize_kv,
    .attend = attend,
};

}  // namespace atom::cpu

#endif
