// RMSNorm, gather and quantization of the input of w4a8 linears in one pass; or without the norm.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/gemm/w4a8_layout.h"
#include "base/status.h"
#include "tensor/dtype.h"

namespace atom::cuda {

// Codes and scales are bit-identical to ops/numerics.h: INT8 a token for the body (symmetric), INT8
// a token for the outliers (no clip). All pointers are GPU memory.
struct NormQuantizeArgs {
  bool norm = true;                  // false: x itself is gathered; weight and eps are unused
  const void* x = nullptr;           // [tokens, channels] of x_type
  DType x_type = DType::kF16;        // kF16, kBF16 or kF32
  int64_t tokens = 0, channels = 0;  // channels: a multiple of 16
  int64_t outliers = 0;              // the last ones after the gather; a multiple of 4
  const uint16_t* perm = nullptr;    // [channels] source of each gathered channel
  const float* weight = nullptr;     // [channels] RMSNorm weight in gathered order
  float eps = 1e-5f;
  float clip = 1.0f;                // of the body
  w4a8::Shape shape;                // of the activations
  int64_t capacity = 0;             // tokens the outputs are laid out for
  int8_t* codes = nullptr;          // w4a8_layout.h, padding included
  float* scales = nullptr;          // [capacity]
  float* outlier_scales = nullptr;  // [capacity]
  int32_t* sums = nullptr;          // [capacity]
};

inline constexpr int64_t kMostNormChannels = 12288;  // a row waits in shared memory as floats

// Error: kUnsupported for sizes or types without kernel.
Status launch_rmsnorm_quantize(const NormQuantizeArgs& args, cudaStream_t stream);

}  // namespace atom::cuda
