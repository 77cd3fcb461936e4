// Brings weights from the checkpoint's layout into the kernels' order, on the host, while loading.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/cuda/gemm/w4a8_layout.h"
#include "base/status.h"
#include "tensor/packed_linear.h"

namespace atom::cuda {

// A packed linear ready to be copied to the GPU.
struct W4A8Weights {
  std::vector<uint8_t> blocks;    // w4a8_layout.h
  std::vector<float> row_scales;  // [rows, padded to 64], 0 in the padding
};

// Blocks along K of a linear with `cols` input channels.
w4a8::Shape w4a8_shape(const WeightFormat& format, int64_t cols);

// kTwoLevel weights with a group of 32, 64 or a multiple of 128, outliers none or INT8.
Result<W4A8Weights> pack_w4a8(const PackedLinear& linear);

}  // namespace atom::cuda
