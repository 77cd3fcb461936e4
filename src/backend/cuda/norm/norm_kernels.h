// The norm kernels as host code sees them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace atom::cuda::norm {

struct Params {
  bool norm;  // else x is only gathered and quantized
  const void* x;
  int tokens, channels, outliers;
  const uint16_t* perm;
  const float* weight;
  float eps, inverse_channels;
  float step;               // clip / 127 of the body
  float outlier_step;       // 1 / 127
  int body_blocks, blocks;  // of 128 columns
  int64_t capacity;
  int8_t* codes;
  float* scales;
  float* outlier_scales;
  int32_t* sums;
  int sms;  // multiprocessors
};

inline constexpr int kMostChannels = 12288;  // a thread has 28 columns at most

// type: 0 f16, 1 bf16, 2 f32.
void launch(const Params& params, int type, cudaStream_t stream);

}  // namespace atom::cuda::norm
