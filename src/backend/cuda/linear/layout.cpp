#include "backend/cuda/linear/layout.h"

#include "backend/cuda/gemm/nvfp4_layout.h"
#include "backend/cuda/gemm/pack_weights.h"
#include "backend/cuda/linear/linear_kernels.h"

namespace atom::cuda {

namespace {

// NVFP4 on both sides, perhaps with longer groups.
bool is_nvfp4(const LinearFormat& format) {
  const WeightFormat& w = format.weight;
  return w.kind == WeightKind::kGrouped && w.scales == GroupScales::kE4M3 && format.act.quantized &&
         format.act.scales == GroupScales::kE4M3 && w.group % nvfp4::kGroup == 0 && w.group != 0 &&
         w.outlier_kind != OutlierKind::kFloat;
}

}  // namespace

LinearLayout linear_layout(const LinearFormat& format, int64_t channels, ChipKernels chip) {
  const WeightFormat& w = format.weight;
  if (is_nvfp4(format)) return chip.tcgen05 ? LinearLayout::kNvFp4Sm100a : LinearLayout::kNvFp4;
  if (w.scales == GroupScales::kE4M3 || format.act.scales == GroupScales::kE4M3) {
    return LinearLayout::kRows;
  }
  const bool whole_blocks = w.group % w4a8::kBlockCols == 0;  // one long group included
  if (w.outlier_kind == OutlierKind::kFloat || (w.group != 32 && w.group != 64 && !whole_blocks)) {
    return LinearLayout::kRows;
  }
  if (!format.act.quantized) {
    const bool served = w.kind == WeightKind::kGrouped && w.bits <= 4 && w.grid == CodeGrid::kInt &&
                        w.outliers == 0;
    return served && chip.hopper ? LinearLayout::kW4A16 : LinearLayout::kRows;
  }
  if (w.kind == WeightKind::kTwoLevel) {
    return channels <= kMostSumChannels ? LinearLayout::kW4A8 : LinearLayout::kRows;
  }
  if (w.kind == WeightKind::kGrouped && w.bits == 8 && chip.hopper) {
    const bool rows = w.group == 0 && w.outliers == 0 && format.act.group == 0;
    return rows && channels <= kMostSumChannels ? LinearLayout::kW8A8 : LinearLayout::kRows;
  }
  if (w.kind != WeightKind::kGrouped || w.bits > 4 || format.act.bits > 4) {
    return LinearLayout::kRows;
  }
  if (chip.hopper) return LinearLayout::kW4A4;
  // Nibbles hold -8..7, or E2M1 on both sides.
  const bool nibbles =
      whole_blocks && format.act.rule != ActRule::kAsymmetric && format.act.grid == w.grid;
  const bool multiplies = w.grid == CodeGrid::kE2M1 || chip.int4_mma;
  return nibbles && multiplies ? LinearLayout::kW4A4S4 : LinearLayout::kRows;
}

bool can_gate(LinearLayout layout, int64_t rows, ChipKernels chip) {
  const bool by_wgmma = layout == LinearLayout::kW4A8 || layout == LinearLayout::kW8A8 ||
                        layout == LinearLayout::kW4A4 || layout == LinearLayout::kW4A16;
  return chip.hopper && by_wgmma && rows % kGateRun == 0;
}

bool takes_halves(const LinearFormat& format) {
  return !format.act.quantized && format.weight.kind == WeightKind::kFloat &&
         format.weight.dtype == DType::kF16;
}

}  // namespace atom::cuda
