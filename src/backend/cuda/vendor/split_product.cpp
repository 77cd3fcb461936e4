#include "backend/cuda/vendor/split_product.h"

#include <algorithm>

#include "backend/cuda/vendor/split_kernels.h"

namespace atom::cuda {
namespace {

constexpr int64_t kFewestRows = 256;  // of any side: below it the splitting costs too much
constexpr int64_t kAlign = 8;         // halves of 16 bytes
constexpr int64_t kPanelRows = 2048;  // of a Gram matrix: what is above the diagonal is left out

bool suits(int64_t size) { return size >= kFewestRows && size % kAlign == 0; }

template <class T>
bool grow(DeviceArray<T>& array, int64_t count) {
  if (array.size() >= count) return true;
  array = DeviceArray<T>();  // first, so that both need not fit
  Result<DeviceArray<T>> larger = DeviceArray<T>::allocate(count);
  if (!larger.ok()) return false;
  array = std::move(larger).value();
  return true;
}

}  // namespace

bool SplitProduct::reserve(int64_t left, int64_t right) {
  return grow(words_, 4) && grow(left_, left) && grow(right_, right);
}

void SplitProduct::find_largest(const float* x, int64_t count, int index, cudaStream_t stream) {
  ATOM_CUDA_CHECK(cudaMemsetAsync(words_.data() + index, 0, sizeof(uint32_t), stream));
  launch_largest({.x = x, .count = count, .largest = words_.data() + index}, stream);
}

bool SplitProduct::linear(Matmul& matmul, const LinearParams& p, cudaStream_t stream) {
  if (p.tokens < kFewestRows || !suits(p.rows) || !suits(p.cols)) return false;
  const int64_t depth = 3 * p.cols;
  if (!reserve(p.tokens * depth, p.rows * depth)) return false;
  find_largest(p.x, p.tokens * p.cols, 0, stream);
  find_largest(p.w, p.rows * p.cols, 1, stream);
  // x as high, high, low; w as high, low, high.
  SplitParams split = {.x = p.x,
                       .rows = p.tokens,
                       .cols = p.cols,
                       .largest = words_.data(),
                       .to = left_.data(),
                       .row_stride = depth,
                       .part_stride = p.cols,
                       .parts = 3,
                       .low = 2};
  launch_split(split, stream);
  split.x = p.w;
  split.rows = p.rows;
  split.largest = words_.data() + 1;
  split.to = right_.data();
  split.low = 1;
  launch_split(split, stream);
  launch_split_scales({.a = words_.data(),
                       .b = words_.data() + 1,
                       .beta = p.accumulate ? 1.0f : 0.0f,
                       .scales = scales()},
                      stream);
  return matmul.run({.type = MatmulType::kF16,
                     .m = p.tokens,
                     .n = p.rows,
                     .k = depth,
                     .a = {left_.data(), depth},
                     .b = {right_.data(), depth},
                     .c = p.y,
                     .c_stride = p.rows,
                     .beta = p.accumulate ? 1.0f : 0.0f,
                     .scales = scales(),
                     .bias = p.bias},
                    stream);
}

bool SplitProduct::gram(Matmul& matmul, const GramParams& p, cudaStream_t stream) {
  if (p.tokens < kFewestRows || !suits(p.channels)) return false;
  const int64_t part = p.tokens * p.channels;
  if (!reserve(4 * part, 0)) return false;
  find_largest(p.x, part, 0, stream);
  // high, high, low, high: the first three of them meet the last three.
  launch_split({.x = p.x,
                .rows = p.tokens,
                .cols = p.channels,
                .largest = words_.data(),
                .to = left_.data(),
                .row_stride = p.channels,
                .part_stride = part,
                .parts = 4,
                .low = 2},
               stream);
  launch_split_scales({.a = words_.data(), .b = words_.data(), .beta = 1.0f, .scales = scales()},
                      stream);
  for (int64_t row = 0; row < p.channels; row += kPanelRows) {
    const int64_t end = std::min(p.channels, row + kPanelRows);
    const bool done = matmul.run({.type = MatmulType::kF16,
                                  .m = end - row,
                                  .n = end,
                                  .k = 3 * p.tokens,
                                  .a = {left_.data() + row, p.channels, true},
                                  .b = {left_.data() + part, p.channels, true},
                                  .c = p.h + row * p.channels,
                                  .c_stride = p.channels,
                                  .beta = 1.0f,
                                  .scales = scales()},
                                 stream);
    if (!done) {
      ATOM_CHECK(row == 0, "no kernel for a later panel of a Gram matrix");
      return false;
    }
  }
  launch_mirror({.square = p.h, .n = p.channels}, stream);
  return true;
}

}  // namespace atom::cuda
