#include "backend/cuda/norm/rmsnorm_quantize.h"

#include "backend/cuda/norm/norm_kernels.h"
#include "backend/cuda/runtime/device.h"

namespace atom::cuda {

Status launch_rmsnorm_quantize(const NormQuantizeArgs& args, cudaStream_t stream) {
  if (args.tokens == 0) return {};
  const int type = args.x_type == DType::kF16    ? 0
                   : args.x_type == DType::kBF16 ? 1
                   : args.x_type == DType::kF32  ? 2
                                                 : -1;
  // Without a norm only floats have a kernel.
  if (type < 0 || (!args.norm && type != 2) || args.channels % 16 != 0 || args.outliers % 4 != 0 ||
      args.channels > norm::kMostChannels) {
    return error(ErrorCode::kUnsupported,
                 "rmsnorm_quantize: no kernel for {} channels, {} outliers, {}", args.channels,
                 args.outliers, dtype_name(args.x_type));
  }
  const norm::Params params{.norm = args.norm,
                            .x = args.x,
                            .tokens = static_cast<int>(args.tokens),
                            .channels = static_cast<int>(args.channels),
                            .outliers = static_cast<int>(args.outliers),
                            .perm = args.perm,
                            .weight = args.weight,
                            .eps = args.eps,
                            .inverse_channels = 1.0f / static_cast<float>(args.channels),
                            .step = args.clip / 127.0f,
                            .outlier_step = 1.0f / 127.0f,
                            .body_blocks = args.shape.body_blocks,
                            .blocks = args.shape.act_blocks(),
                            .capacity = args.capacity,
                            .codes = args.codes,
                            .scales = args.scales,
                            .outlier_scales = args.outlier_scales,
                            .sums = args.sums,
                            .sms = device_info().sms};
  norm::launch(params, type, stream);
  ATOM_CUDA_CHECK(cudaGetLastError());
  return {};
}

}  // namespace atom::cuda
