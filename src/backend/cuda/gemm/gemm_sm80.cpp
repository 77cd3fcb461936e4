#include "backend/cuda/gemm/gemm_sm80.h"

#include "base/check.h"

namespace atom::cuda {

namespace {

Status check(Sm80Format format, const GemmArgs& args) {
  ATOM_CHECK(args.capacity % 256 == 0 && args.tokens <= args.capacity, "activation capacity");
  const bool whole_blocks_only = format == Sm80Format::kW4A4 || format == Sm80Format::kFp4;
  if ((args.y_type != DType::kF16 && args.y_type != DType::kF32) ||
      (whole_blocks_only && args.shape.groups != 1)) {
    return error(ErrorCode::kUnsupported,
                 "GEMM: no sm_80 kernel for output {} and {} groups a block",
                 dtype_name(args.y_type), args.shape.groups);
  }
  return {};
}

}  // namespace

Status launch_gemm_sm80(Sm80Format format, const GemmArgs& args, cudaStream_t stream) {
  ATOM_TRY(check(format, args));
  if (args.tokens > 0) start_gemm_sm80(format, args, stream);
  return {};
}

Status launch_grouped_gemm_sm80(Sm80Format format, const GemmArgs& args,
                                const ExpertGroups& experts, cudaStream_t stream) {
  ATOM_TRY(check(format, args));
  if (args.tokens > 0) start_grouped_gemm_sm80(format, args, experts, stream);
  return {};
}

}  // namespace atom::cuda
