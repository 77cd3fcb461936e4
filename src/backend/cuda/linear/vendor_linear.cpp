#include "backend/cuda/linear/vendor_linear.h"

#include "backend/cuda/linear/linear_kernels.h"

namespace atom::cuda {
namespace {

constexpr int64_t kFewTokens = 8;

}  // namespace

bool launch_vendor_linear(const VendorProducts& vendor, const WeightView& w,
                          const CudaActivations& x, CudaTensor& y, int64_t tokens, bool accumulate,
                          cudaStream_t stream) {
  if (w.format.kind != WeightKind::kFloat || is_narrow(w, tokens)) return false;
  const bool halves = takes_halves(x.format());
  if (!halves && (w.format.dtype != DType::kF32 || y.halves() || tokens <= kFewTokens)) {
    return false;
  }
  if (!halves && vendor.split != nullptr &&
      vendor.split->linear(*vendor.matmul,
                           {.x = x.values.data(),
                            .w = static_cast<const float*>(w.values),
                            .bias = w.bias,
                            .y = y.data(),
                            .tokens = tokens,
                            .rows = w.rows,
                            .cols = w.cols,
                            .accumulate = accumulate},
                           stream)) {
    return true;
  }
  return vendor.matmul->run(
      {.type = halves ? MatmulType::kF16 : MatmulType::kF32,
       .m = tokens,
       .n = w.rows,
       .k = w.cols,
       .a = {halves ? static_cast<const void*>(x.halves.data()) : x.values.data(), w.cols},
       .b = {w.values, w.cols},
       .c = y.raw(),
       .c_stride = w.rows,
       .c_type = y.dtype(),
       .beta = accumulate ? 1.0f : 0.0f,
       .bias = y.halves() ? static_cast<const void*>(w.half_bias) : w.bias},
      stream);
}

}  // namespace atom::cuda
