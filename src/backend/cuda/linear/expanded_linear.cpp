#include "backend/cuda/linear/expanded_linear.h"

#include <algorithm>

#include "backend/cuda/linear/linear_kernels.h"

namespace atom::cuda {
namespace {

constexpr int64_t kFewTokens = 32;               // for which weights are decoded on the way
constexpr int64_t kFloats = int64_t{16} << 20;   // expanded at a time
constexpr int64_t kRowStep = 64;                 // keeps outputs aligned
static_assert(kFloats >= kRowStep * 64 * 1024);  // more columns than a linear may have

}  // namespace

bool ExpandedLinear::run(Matmul& matmul, const WeightView& w, const CudaActivations& x,
                         CudaTensor& y, int64_t tokens, bool accumulate, cudaStream_t stream) {
  if (x.format().act.quantized || w.format.kind == WeightKind::kFloat || tokens <= kFewTokens ||
      y.halves()) {
    return false;
  }
  if (weights_.size() == 0) {
    Result<DeviceArray<float>> weights = DeviceArray<float>::allocate(kFloats);
    if (!weights.ok()) return false;
    weights_ = std::move(weights).value();
  }
  const int64_t step = std::min<int64_t>(kFloats / w.cols / kRowStep * kRowStep, w.rows);
  // The last rows, which may be fewer, first: whether there is a kernel shows before y is changed.
  bool started = false;
  for (int64_t first = (w.rows - 1) / step * step; first >= 0; first -= step) {
    const int64_t rows = std::min(step, w.rows - first);
    launch_expand_weights({.w = w, .first_row = first, .rows = rows, .to = weights_.data()},
                          stream);
    const bool done = matmul.run({.type = MatmulType::kF32,
                                  .m = tokens,
                                  .n = rows,
                                  .k = w.cols,
                                  .a = {x.values.data(), w.cols},
                                  .b = {weights_.data(), w.cols},
                                  .c = y.data() + first,
                                  .c_stride = w.rows,
                                  .beta = accumulate ? 1.0f : 0.0f,
                                  .bias = w.bias == nullptr ? nullptr : w.bias + first},
                                 stream);
    if (!done && !started) return false;
    ATOM_CHECK(done, "the library has a product for some rows of a linear and not for others");
    started = true;
  }
  return true;
}

}  // namespace atom::cuda
