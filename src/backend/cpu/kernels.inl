// All kernels, and their table, as a kernels_*.cpp file compiles them for one instruction set. Such
// a file first says in namespace atom::cpu what its registers hold:
//
//   kBlockTokens, kBlockPanels       tokens and panels of an integer linear's sums
//   kProductRows, kProductVectors    rows and vectors of a float product's sums
//   kCodeRows, kCodePages            rows of queries and pages whose codes meet at once
#pragma once

#include "backend/cpu/attention.inl"
#include "backend/cpu/heads.inl"
#include "backend/cpu/linear.inl"
#include "backend/cpu/rows.inl"

namespace atom::cpu {
namespace {

constexpr Kernels all_kernels(const char* name) {
  return {
      .name = name,
      .gather = gather,
      .normalize = normalize,
      .silu_mul = silu_mul,
      .absmax = absmax,
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
}

}  // namespace
}  // namespace atom::cpu
