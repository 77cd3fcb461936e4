#include "backend/cuda/experts/experts.h"

#include <type_traits>

#include "backend/cuda/experts/expert_kernels.h"
#include "backend/cuda/experts/grouped_gemm.h"
#include "backend/cuda/gemm/nvfp4_sm100a.h"
#include "backend/cuda/linear/linear.h"
#include "backend/cuda/linear/linear_kernels.h"

namespace atom::cuda {
namespace {

// Where kernels find a tensor of activations.
template <class Acts>
auto arrays_of(Acts& a) {
  constexpr bool kConst = std::is_const_v<Acts>;
  return ActivationArrays<kConst>{.places = a.places,
                                  .codes = a.format().act.quantized ? a.codes.data() : nullptr,
                                  .scales = a.scales.data(),
                                  .outlier_scales = a.outlier_scales.data(),
                                  .sums = a.sums.size() > 0 ? a.sums.data() : nullptr,
                                  .values = a.values.data(),
                                  .halves = a.halves.data()};
}

}  // namespace

void route(const CudaTensor& scores, int64_t tokens, const CudaRouting& routing,
           cudaStream_t stream) {
  ATOM_CHECK(tokens <= scores.rows() && tokens <= routing.max_tokens() &&
                 scores.cols() == routing.experts(),
             "route: shape of scores");
  launch_route(
      {.scores = scores.data(), .tokens = static_cast<int>(tokens), .routing = routing.view()},
      stream);
}

void gather_routed(const CudaActivations& x, const CudaRouting& routing, int64_t tokens,
                   CudaActivations& y, cudaStream_t stream) {
  const int64_t rows = tokens * routing.active();
  ATOM_CHECK(x.format() == y.format() && x.channels() == y.channels() &&
                 tokens <= routing.max_tokens() && tokens <= x.max_tokens() &&
                 rows <= y.max_tokens(),
             "gather_routed: operands do not fit together");
  const CodePlaces& places = x.places;
  const bool block_scales =
      places.layout == LinearLayout::kW4A4 || places.layout == LinearLayout::kW4A4S4;
  const int64_t scales = has_e4m3_scales(places.layout) ? 1
                         : block_scales ? int64_t{places.shape.body_blocks} * places.shape.groups
                                        : x.groups;
  launch_gather_routed({.sources = routing.view().tokens,
                        .rows = static_cast<int>(rows),
                        .from = arrays_of(x),
                        .to = arrays_of(y),
                        .scale_count = static_cast<int>(scales),
                        .value_count = static_cast<int>(x.value_count),
                        .half_count = x.in_halves ? static_cast<int>(x.channels()) : 0},
                       stream);
}

Status grouped_linear(const GroupedLinearArgs& args, ChipKernels chip, ExpertTables& tables,
                      void* workspace, cudaStream_t stream) {
  const CudaRouting& routing = cast(*args.routing);
  const CudaActivations& x = cast(*args.x);
  CudaTensor& y = cast(*args.y);
  ATOM_CHECK(static_cast<int64_t>(args.w.size()) == routing.experts() &&
                 readable(x.format(), args.w[0]->format()),
             "grouped_linear: a linear for each expert, of x's format");
  const WeightView& w = cast(*args.w[0]).view();
  const int64_t rows = args.tokens * routing.active();
  ATOM_CHECK(w.cols == x.channels() && w.rows == y.cols() * (w.gated ? 2 : 1) && rows <= y.rows() &&
                 rows <= x.max_tokens() && args.tokens <= routing.max_tokens() &&
                 x.places.layout == w.layout && (y.halves() || !w.gated),
             "grouped_linear: operands do not fit together");
  const WeightView* table = ATOM_TRY(tables.find(args.w));
  const int count = static_cast<int>(routing.experts());
  if (w.layout != LinearLayout::kRows) {
    GemmArgs gemm = gemm_args(w, x, rows, y, workspace);
    gemm.gated = w.gated;
    const ExpertGroups groups = {
        .w = table, .offsets = routing.view().offsets, .count = count, .most_tokens = args.tokens};
    if (w.layout == LinearLayout::kNvFp4Sm100a) {
      launch_grouped_nvfp4_sm100a(gemm, groups, stream);
      return {};
    }
    if (!chip.hopper || multiplies_by_mma(w.layout)) {
      return launch_grouped_gemm_sm80(sm80_format(w), gemm, groups, stream);
    }
    return launch_grouped_gemm(gemm, groups, choose_grouped_gemm(gemm, groups), stream);
  }
  // A token goes to an expert once at most.
  const auto most = static_cast<int>(args.tokens);
  const LinearGroups groups = {.w = table, .offsets = routing.view().offsets, .count = count};
  const bool x_halves = takes_halves(x.format());
  FloatLinearParams floats = {
      .w = w,
      .x = x_halves ? static_cast<const void*>(x.halves.data()) : x.values.data(),
      .x_halves = x_halves,
      .y = y.raw(),
      .halves = y.halves(),
      .tokens = most};
  if (!x.format().act.quantized || w.format.kind == WeightKind::kFloat) {
    launch_grouped_float_linear(floats, groups, stream);
    return {};
  }
  launch_grouped_integer_linear({.w = w,
                                 .x = x.codes.data(),
                                 .x_stride = x.places.stride,
                                 .outlier_offset = static_cast<int>(x.places.outlier_offset),
                                 .x_scales = x.scales.data(),
                                 .x_groups = static_cast<int>(x.groups),
                                 .x_outlier_scales = x.outlier_scales.data(),
                                 .y = y.raw(),
                                 .halves = y.halves(),
                                 .tokens = most},
                                groups, stream);
  if (w.format.outlier_kind == OutlierKind::kFloat) {
    floats.first = w.body;
    floats.accumulate = true;
    launch_grouped_float_linear(floats, groups, stream);
  }
  return {};
}

void combine(const CudaTensor& x, const CudaRouting& routing, int64_t tokens, CudaTensor& y,
             cudaStream_t stream) {
  ATOM_CHECK(tokens <= routing.max_tokens() && tokens * routing.active() <= x.rows() &&
                 tokens <= y.rows() && x.cols() == y.cols(),
             "combine: operands do not fit together");
  launch_combine({.x = x.data(),
                  .y = y.data(),
                  .tokens = static_cast<int>(tokens),
                  .cols = static_cast<int>(y.cols()),
                  .routing = routing.view()},
                 stream);
}

}  // namespace atom::cuda
