// half_operands: rows of bytes with a scale every 32 columns become halves in blocks, see
// half_operands.h.
//   codes s8 [T, stride], scales f32 [T, K/32] -> x f16, units f32 [T]
// Work: a CTA a token; each warp finds the token's largest scale, a lane takes 16 columns.
// Rounds: to f16 once.   Bound: latency.
#include <cuda_fp16.h>

#include "backend/cuda/linear/half_operands.h"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda::half_operands {
namespace {

constexpr int kThreads = 256, kPiece = 16, kGroup = 32, kBlockPieces = kBlockCols / kPiece;

// 2^exponent with the largest scale times it in 2^7 .. 2^8, as far as floats and their inverses go.
__device__ inline int exponent_for(float largest) {
  const int exponent = static_cast<int>(__float_as_uint(largest) >> 23) - 127;
  return min(7 - exponent, 126);
}
__device__ inline float power_of_two(int exponent) {
  return __uint_as_float(static_cast<uint32_t>(exponent + 127) << 23);
}

__global__ __launch_bounds__(kThreads) void half_operands_kernel(const __grid_constant__ Params p) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int64_t token = blockIdx.x;
  const int groups = p.channels / kGroup;
  const float* scales = p.scales + token * groups;
  wait_for_previous();
  let_next_start();
  const int8_t* codes = p.codes + token * p.stride;
  const int pieces = blocks(p.channels) * kBlockPieces;
  uint4 raw = {};
  float scale = 0;
  const auto fetch = [&](int piece) {
    raw = {};
    scale = 0;
    if (piece * kPiece >= p.channels) return;
    raw = *reinterpret_cast<const uint4*>(codes + piece * kPiece);
    scale = scales[piece * kPiece / kGroup];
  };
  fetch(thread);  // beside the scales
  float most = 0;
  for (int g = lane; g < groups; g += 32) most = fmaxf(most, fabsf(scales[g]));
  // Positive floats are in the order of their bits.
  most = __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(most)));
  const int exponent = exponent_for(most);
  const float power = power_of_two(exponent);
  if (thread == 0) p.units[token] = power_of_two(-exponent);
  for (int piece = thread; piece < pieces; piece += kThreads) {
    scale *= power;
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
    const int block = piece / kBlockPieces, half = piece % 2, c = piece % kBlockPieces / 2;
    auto* row = reinterpret_cast<uint8_t*>(p.x + place(block, half, token, p.capacity)) + 4 * c;
#pragma unroll
    for (int s = 0; s < 4; ++s) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const auto value = [&](int byte) {
          return static_cast<float>(static_cast<int8_t>(words[s] >> (8 * byte))) * scale;
        };
        *reinterpret_cast<__half2*>(row + ((2 * s + h) ^ static_cast<int>(token % 8)) * 16) =
            __floats2half2_rn(value(h), value(h + 2));
      }
    }
    fetch(piece + kThreads);
  }
}

}  // namespace

void launch(const Params& params, cudaStream_t stream) {
  launch_chained(half_operands_kernel, dim3(static_cast<unsigned>(params.tokens)), kThreads, 0,
                 params, stream);
}

}  // namespace atom::cuda::half_operands
