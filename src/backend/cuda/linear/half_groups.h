// Linears of bytes in groups of 32 on both sides, for many tokens on Hopper: as products of halves.
// They take the weights of byte_groups.cu, and a power of two for each row.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

#include "backend/cuda/linear/layout.h"
#include "backend/cuda/linear/linear_kernels.h"
#include "tensor/format_types.h"

namespace atom::cuda {

// Whether the linears of a format are such, so that their view needs row_scales.
constexpr bool has_half_groups(const LinearFormat& format, ChipKernels chip) {
  const WeightFormat& w = format.weight;
  const ActFormat& act = format.act;
  return chip.hopper && w.kind == WeightKind::kGrouped && w.bits == 8 && w.group == 32 &&
         w.scales == GroupScales::kFloat && w.outliers == 0 && act.quantized && act.bits == 8 &&
         act.group == 32;
}

// Up to so many tokens byte_groups.cu is as fast, and exact.
inline constexpr int kFewHalfTokens = 16;

// REQUIRES: such weights. scratch: GPU memory, for half_operands::bytes() of eight tokens at least.
void launch_half_groups(const IntegerLinearParams& params, std::span<uint8_t> scratch,
                        cudaStream_t stream);

}  // namespace atom::cuda
