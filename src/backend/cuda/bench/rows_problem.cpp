#include "backend/cuda/bench/rows_problem.h"

#include <numeric>

#include "backend/cuda/gemm/pack_weights.h"
#include "backend/cuda/norm/rmsnorm_quantize.h"
#include "base/random.h"
#include "ops/numerics.h"
#include "tensor/formats.h"

namespace atom::cuda::bench {
namespace {

constexpr float kEps = 1e-5f;

LinearFormat linear_format(RowFormat format, int64_t outliers) {
  const bool two_level = format == RowFormat::kW4A8, searching = format == RowFormat::kW4A4Search;
  const int64_t group = searching ? 32 : kGroup;
  return {.weight = {.kind = two_level ? WeightKind::kTwoLevel : WeightKind::kGrouped,
                     .bits = 4,
                     .group = group,
                     .outliers = outliers,
                     .outlier_kind = outliers > 0 ? OutlierKind::kInt8 : OutlierKind::kNone},
          .act = {.quantized = true,
                  .bits = two_level ? 8 : 4,
                  .group = two_level ? 0 : group,
                  .rule = searching ? ActRule::kAsymmetric : ActRule::kSymmetric,
                  .search = searching,
                  .grid = format == RowFormat::kFp4 ? CodeGrid::kE2M1 : CodeGrid::kInt}};
}

}  // namespace

std::string_view RowsProblem::name() const {
  if (format_ == RowFormat::kW4A8) return "norm + gather, int8";
  if (format_ == RowFormat::kFp4) return "norm + gather, fp4 g128";
  return format_ == RowFormat::kW4A4 ? "norm + gather, int4 g128"
                                     : "norm + gather, int4 g32 search";
}

Result<RowsProblem> RowsProblem::create(RowFormat format, const KernelSize& size,
                                        int64_t outliers) {
  RowsProblem p;
  p.format_ = format;
  p.size_ = size;
  p.linear_ = linear_format(format, outliers);
  ATOM_TRY(validate(p.linear_, size.inputs));
  if (size.inputs % 16 != 0 || size.inputs > kMostNormChannels) {
    return error(ErrorCode::kUnsupported, "rows of {} channels: no fast kernel", size.inputs);
  }
  p.places_.layout = format == RowFormat::kW4A8 ? LinearLayout::kW4A8 : LinearLayout::kW4A4;
  p.places_.capacity = (size.tokens + 255) / 256 * 256;
  p.places_.shape = w4a8_shape(p.linear_.weight, size.inputs);
  p.places_.outlier_offset = int64_t{p.places_.shape.body_blocks} * w4a8::kBlockCols;
  const int copies = rotations(size.tokens * size.inputs * 5);
  const auto x = ATOM_TRY(random_floats(size.tokens * size.inputs, 5)).to_host();
  std::vector<int32_t> perm(static_cast<size_t>(size.inputs));
  std::iota(perm.begin(), perm.end(), 0);
  Random random(6);
  for (size_t i = perm.size(); i > 1; --i) {
    std::swap(perm[i - 1], perm[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
  }
  for (int i = 0; i < copies; ++i) {
    p.x_.push_back(ATOM_TRY(DeviceArray<float>::copy_of(x)));
    p.codes_.push_back(ATOM_TRY(DeviceArray<int8_t>::allocate(p.places_.code_bytes(size.tokens))));
  }
  p.perm_ = ATOM_TRY(DeviceArray<int32_t>::copy_of(perm));
  p.perm16_ =
      ATOM_TRY(DeviceArray<uint16_t>::copy_of(std::vector<uint16_t>(perm.begin(), perm.end())));
  p.weight_ = ATOM_TRY(same_floats(size.inputs, 1.1f));
  p.scales_ = ATOM_TRY(DeviceArray<float>::allocate(p.places_.scale_count(size.tokens, 1)));
  p.outlier_scales_ = ATOM_TRY(DeviceArray<float>::allocate(p.places_.capacity));
  p.sums_ = ATOM_TRY(DeviceArray<int32_t>::allocate(p.places_.capacity));
  return p;
}

void RowsProblem::launch(int copy, cudaStream_t stream, int8_t* codes) const {
  if (codes == nullptr) codes = const_cast<int8_t*>(codes_[static_cast<size_t>(copy)].data());
  auto* scales = const_cast<float*>(scales_.data());
  auto* outlier_scales = const_cast<float*>(outlier_scales_.data());
  if (format_ == RowFormat::kW4A8) {
    const Status status = launch_rmsnorm_quantize({.x = x(copy),
                                                   .x_type = DType::kF32,
                                                   .tokens = size_.tokens,
                                                   .channels = size_.inputs,
                                                   .outliers = linear_.weight.outliers,
                                                   .perm = perm16_.data(),
                                                   .weight = weight_.data(),
                                                   .eps = kEps,
                                                   .shape = places_.shape,
                                                   .capacity = places_.capacity,
                                                   .codes = codes,
                                                   .scales = scales,
                                                   .outlier_scales = outlier_scales,
                                                   .sums = const_cast<int32_t*>(sums_.data())},
                                                  stream);
    ATOM_CHECK(status.ok(), status.message().c_str());
    return;
  }
  const int body = static_cast<int>(body_channels(linear_.weight, size_.inputs));
  QuantizeParams params = {.source = RowSource::kNorm,
                           .x = x(copy),
                           .tokens = static_cast<int>(size_.tokens),
                           .channels = static_cast<int>(size_.inputs),
                           .perm = perm_.data(),
                           .norm_weight = weight_.data(),
                           .eps = kEps,
                           .format = linear_.act,
                           .outlier_kind = linear_.weight.outlier_kind,
                           .body = body,
                           .group = static_cast<int>(linear_.act.group),
                           .places = places_,
                           .codes = codes,
                           .scales = scales,
                           .outlier_scales = outlier_scales};
  for (size_t c = 0; c < std::size(numerics::kSearchClips); ++c) {
    params.clips[c] = numerics::kSearchClips[c];
  }
  ATOM_CHECK(serves_group_rows(params), "rows without a fast kernel");
  launch_group_rows(params, stream);
}

}  // namespace atom::cuda::bench
