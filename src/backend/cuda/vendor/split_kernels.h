// Floats as two halves each, for products of floats on the tensor cores of halves:
//
//     2^e x = high + low     high = f16(2^e x), low = f16(2^e x - high), e from the largest |x|
//     a b^T ~ 2^-(ea + eb) (high high^T + high low^T + low high^T)
//
// keeps 22 bits of every element (the fourth product is below them), with sums in floats. The three
// products are one, of three times the depth: the parts of a matrix stand beside, or below, each
// other, those of its partner so that they meet in this order.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace atom::cuda {

// largest := the bits of max |x|. REQUIRES: *largest == 0.
struct LargestParams {
  const float* x = nullptr;
  int64_t count = 0;
  uint32_t* largest = nullptr;
};
void launch_largest(const LargestParams& params, cudaStream_t stream);

// Part i of row r begins at to + r * row_stride + i * part_stride. REQUIRES: cols and strides
// multiples of 8.
struct SplitParams {
  const float* x = nullptr;  // [rows, cols]
  int64_t rows = 0, cols = 0;
  const uint32_t* largest = nullptr;
  uint16_t* to = nullptr;
  int64_t row_stride = 0, part_stride = 0;
  int parts = 0;
  int low = 0;  // which of them is the low half; the others are the high one
};
void launch_split(const SplitParams& params, cudaStream_t stream);

// scales := 2^-(ea + eb), beta.
struct SplitScaleParams {
  const uint32_t* a = nullptr;
  const uint32_t* b = nullptr;
  float beta = 0;
  float* scales = nullptr;
};
void launch_split_scales(const SplitScaleParams& params, cudaStream_t stream);

// The upper triangle of a square matrix becomes the lower one's mirror image.
struct MirrorParams {
  float* square = nullptr;  // [n, n]
  int64_t n = 0;
};
void launch_mirror(const MirrorParams& params, cudaStream_t stream);

}  // namespace atom::cuda
