// The layouts that a linear's weights and activations come in, each with a kernel that multiplies
// them.
#pragma once

#include <cstdint>

#include "tensor/format_types.h"

namespace atom::cuda {

enum class LinearLayout : uint8_t {
  kRows,         // as the checkpoint has them: the kernels of every format
  kW4A8,         // gemm/w4a8_layout.h
  kW8A8,         // gemm/w4a8_layout.h, wide blocks
  kW4A4,         // gemm/w4a4_layout.h
  kW4A4S4,       // gemm/w4a4_s4_layout.h, integers or E2M1
  kW4A16,        // gemm/w4a16_layout.h: activations are halves
  kNvFp4,        // gemm/nvfp4_layout.h
  kNvFp4Sm100a,  // gemm/nvfp4_sm100a_layout.h
};

// Whether activations are blocks of INT8 codes with one scale a token beside the outliers'.
constexpr bool takes_int8_blocks(LinearLayout layout) {
  return layout == LinearLayout::kW4A8 || layout == LinearLayout::kW8A8;
}

// Whether scales of groups are bytes of E4M3, under a unit for each token.
constexpr bool has_e4m3_scales(LinearLayout layout) {
  return layout == LinearLayout::kNvFp4 || layout == LinearLayout::kNvFp4Sm100a;
}
// Whether body codes of activations are nibbles.
constexpr bool takes_nibbles(LinearLayout layout) {
  return layout == LinearLayout::kW4A4S4 || has_e4m3_scales(layout);
}
// Whether a layout's linears are multiplied by mma.sync on every chip.
constexpr bool multiplies_by_mma(LinearLayout layout) {
  return layout == LinearLayout::kW4A4S4 || layout == LinearLayout::kNvFp4;
}

// Kernels that not every chip has.
struct ChipKernels {
  bool hopper = false;    // wgmma and bulk copies
  bool int4_mma = false;  // INT4 tensor cores
  bool tcgen05 = false;   // sm_100a's tensor cores
};

// Where the linears of a format with so many input channels are fastest. It depends on what a
// linear and its activations have in common, their format.
LinearLayout linear_layout(const LinearFormat& format, int64_t channels, ChipKernels chip);

// Whether a layout's linears can gate: make silu(gate) * up of gate_proj's and up_proj's rows,
// `rows` each.
bool can_gate(LinearLayout layout, int64_t rows, ChipKernels chip);

// Whether inputs of a format's linears are kept as rows of halves: those of F16 weights.
bool takes_halves(const LinearFormat& format);

}  // namespace atom::cuda
