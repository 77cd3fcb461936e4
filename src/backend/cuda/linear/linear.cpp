#include "backend/cuda/linear/linear.h"

#include "backend/cuda/gemm/gemm.h"
#include "backend/cuda/gemm/gemm_sm80.h"
#include "backend/cuda/gemm/nvfp4_sm100a.h"
#include "backend/cuda/linear/half_groups.h"
#include "backend/cuda/linear/linear_kernels.h"
#include "backend/cuda/linear/vendor_linear.h"
#include "backend/cuda/objects.h"

namespace atom::cuda {
namespace {

void launch_blocked(const LinearArgs& args, const ChipKernels& kernels, void* workspace,
                    std::span<const uint8_t> next, cudaStream_t stream) {
  const WeightView& w = cast(*args.w).view();
  GemmArgs gemm = gemm_args(w, cast(*args.x), args.tokens, cast(*args.y), workspace);
  gemm.weights = w.codes;
  gemm.row_scales = w.row_scales;
  gemm.bias = w.bias;
  gemm.accumulate = args.accumulate;
  gemm.gated = w.gated;
  gemm.next = next;
  if (w.layout == LinearLayout::kNvFp4Sm100a) return launch_nvfp4_sm100a(gemm, stream);
  if (kernels.hopper && !multiplies_by_mma(w.layout)) {
    return must(launch_gemm(gemm, choose_gemm(gemm), stream));
  }
  must(launch_gemm_sm80(sm80_format(w), gemm, stream));
}

}  // namespace

bool readable(const LinearFormat& acts, const LinearFormat& linear) {
  if (acts.act.quantized != linear.act.quantized) return false;
  return !acts.act.quantized || (acts.act == linear.act && acts.weight.kind == linear.weight.kind &&
                                 acts.weight.group == linear.weight.group &&
                                 acts.weight.outliers == linear.weight.outliers &&
                                 acts.weight.outlier_kind == linear.weight.outlier_kind);
}

namespace {

GemmFormat gemm_format(const WeightView& w) {
  switch (w.layout) {
    case LinearLayout::kW8A8:
      return GemmFormat::kW8A8;
    case LinearLayout::kW4A4:
    case LinearLayout::kW4A4S4:
      return w.format.grid == CodeGrid::kE2M1 ? GemmFormat::kFp4 : GemmFormat::kW4A4;
    case LinearLayout::kW4A16:
      return GemmFormat::kW4A16;
    case LinearLayout::kW4A8:
    case LinearLayout::kNvFp4:
    case LinearLayout::kNvFp4Sm100a:
    case LinearLayout::kRows:
      break;
  }
  return GemmFormat::kW4A8;
}

}  // namespace

GemmArgs gemm_args(const WeightView& w, const CudaActivations& x, int64_t tokens, CudaTensor& y,
                   void* workspace) {
  const bool halves = w.layout == LinearLayout::kW4A16;
  return {.format = gemm_format(w),
          .rows = w.rows,
          .tokens = tokens,
          .capacity = x.places.capacity,
          .shape = w.shape,
          .x = halves ? reinterpret_cast<const int8_t*>(x.halves.data()) : x.codes.data(),
          .x_scales = x.scales.data(),
          .x_outlier_scales = w.shape.outlier_blocks > 0 ? x.outlier_scales.data() : nullptr,
          .x_sums = x.sums.data(),
          .y = y.raw(),
          .y_type = y.dtype(),
          .workspace = workspace};
}

Sm80Format sm80_format(const WeightView& w) {
  if (w.layout == LinearLayout::kNvFp4) return Sm80Format::kNvFp4;
  if (w.layout != LinearLayout::kW4A4S4) return Sm80Format::kW4A8;
  return w.format.grid == CodeGrid::kE2M1 ? Sm80Format::kFp4 : Sm80Format::kW4A4;
}

void launch_linear(const LinearArgs& args, const ChipKernels& kernels, const VendorProducts& vendor,
                   ExpandedLinear& expanded, void* gemm_workspace, std::span<const uint8_t> next,
                   cudaStream_t stream) {
  const LinearFormat& format = args.w->format();
  const CudaActivations& x = cast(*args.x);
  const WeightView& w = cast(*args.w).view();
  CudaTensor& y = cast(*args.y);
  const auto tokens = static_cast<int>(args.tokens);
  ATOM_CHECK(readable(x.format(), format) && w.cols == x.channels() &&
                 w.rows == y.cols() * (w.gated ? 2 : 1) && args.tokens <= y.rows() &&
                 args.tokens <= x.max_tokens() && x.places.layout == w.layout &&
                 !(args.accumulate && (y.halves() || w.gated)) && (y.halves() || !w.gated),
             "linear: operands do not fit together");
  if (w.layout != LinearLayout::kRows) {
    return launch_blocked(args, kernels, gemm_workspace, next, stream);
  }
  if (launch_vendor_linear(vendor, w, x, y, args.tokens, args.accumulate, stream) ||
      expanded.run(*vendor.matmul, w, x, y, args.tokens, args.accumulate, stream)) {
    return;
  }
  if (!format.act.quantized || format.weight.kind == WeightKind::kFloat) {
    const bool x_halves = takes_halves(format);
    return launch_float_linear(
        {.w = w,
         .x = x_halves ? static_cast<const void*>(x.halves.data()) : x.values.data(),
         .x_halves = x_halves,
         .y = y.raw(),
         .halves = y.halves(),
         .tokens = tokens,
         .accumulate = args.accumulate},
        stream);
  }
  const IntegerLinearParams params = {.w = w,
                                      .x = x.codes.data(),
                                      .x_stride = x.places.stride,
                                      .outlier_offset = static_cast<int>(x.places.outlier_offset),
                                      .x_scales = x.scales.data(),
                                      .x_groups = static_cast<int>(x.groups),
                                      .x_outlier_scales = x.outlier_scales.data(),
                                      .y = y.raw(),
                                      .halves = y.halves(),
                                      .tokens = tokens,
                                      .accumulate = args.accumulate};
  if (has_half_groups(format, kernels) && tokens > kFewHalfTokens) {
    return launch_half_groups(params, gemm_scratch(gemm_workspace), stream);
  }
  if (launch_byte_groups(params, stream)) return;
  launch_integer_linear(params, stream);
  if (format.weight.outlier_kind == OutlierKind::kFloat) {
    launch_float_linear({.w = w,
                         .first = w.body,
                         .x = x.values.data(),
                         .y = y.raw(),
                         .halves = y.halves(),
                         .tokens = tokens,
                         .accumulate = true},
                        stream);
  }
}

}  // namespace atom::cuda
