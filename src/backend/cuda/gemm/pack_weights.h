// Brings weights from the checkpoint's layout into the kernels' order, on the host, while loading.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/cuda/gemm/w4a8_layout.h"
#include "base/status.h"
#include "tensor/packed_linear.h"

namespace atom::cuda {

// A packed linear ready to be copied to the GPU.
struct GemmWeights {
  std::vector<uint8_t> blocks;  // of one of the *_layout.h
  // [rows, padded to 64], 0 in the padding: of whole rows (w4a8, w8a8, w4a16) or of their outliers
  // (w4a4).
  std::vector<float> row_scales;
};

// A GEMM that gates wants gate_proj's and up_proj's rows in turns of so many (epilogue.cuh): to be
// brought into this order before they are packed.
inline constexpr int64_t kGateRun = 8;

// Blocks along K of a linear with `cols` input channels.
w4a8::Shape w4a8_shape(const WeightFormat& format, int64_t cols);

// The power of two that takes the largest scale of a row to 2^14 or more, below 2^15. REQUIRES:
// kGrouped.
int scale_exponent(const PackedLinear& linear, int64_t row);

// kTwoLevel weights with a group of 32, 64 or a multiple of 128, outliers none or INT8.
Result<GemmWeights> pack_w4a8(const PackedLinear& linear);
// kGrouped weights of 8 bits with one scale a row and no outliers.
Result<GemmWeights> pack_w8a8(const PackedLinear& linear);
// kGrouped weights of at most 4 bits that take activations of at most 4 bits; groups and outliers
// as above.
Result<GemmWeights> pack_w4a4(const PackedLinear& linear);
// The same in w4a4_s4_layout.h; groups of multiples of 128 only.
Result<GemmWeights> pack_w4a4_s4(const PackedLinear& linear);
// kGrouped weights and activations of E2M1 under E4M3 scales, groups of 16 or a multiple of it;
// outliers as above. row_scales: units, then those of the outliers.
Result<GemmWeights> pack_nvfp4(const PackedLinear& linear);
// The same in nvfp4_sm100a_layout.h.
Result<GemmWeights> pack_nvfp4_sm100a(const PackedLinear& linear);
// kGrouped weights of at most 4 bits without outliers that take float activations; groups as above.
Result<GemmWeights> pack_w4a16(const PackedLinear& linear);

}  // namespace atom::cuda
