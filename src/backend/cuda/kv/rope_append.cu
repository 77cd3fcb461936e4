// rope_append: new tokens' q, k and v; q out, k and v into the pages.
//   qkv [T, (H + 2 KH) * DH] f32 or f16 -> q [T, H * DH] f32, records of the cache (page_format.h)
// Work: a warp a head of a token, of any size and rotating in part or whole; common heads have
// kernels of their own (rope_append_registers.cu). The vector lies in shared memory; the steps are
// those of ops/numerics.h one by one, so that queries and codes are the same bits everywhere.
// Bound: latency.
#include <cuda_fp16.h>

#include "backend/cuda/attention/page_format.h"
#include "backend/cuda/kv/rope_append.h"
#include "backend/cuda/rows/norm_sum.cuh"
#include "backend/cuda/runtime/elements.cuh"
#include "backend/cuda/runtime/launch.cuh"
#include "ops/numerics.h"

namespace atom::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kMostDim = 512;

__device__ void normalise(float* x, int dim, const float* weight, float eps, int lane) {
  float sums[kNormWarps];
#pragma unroll
  for (int w = 0; w < kNormWarps; ++w) sums[w] = norm_lanes_sum(x, dim, w, lane);
  const float factor = norm_factor(sums, dim, eps);
  for (int d = lane; d < dim; d += 32) x[d] = x[d] * factor * weight[d];
  __syncwarp();
}

__device__ void rotate(float* x, const float* angles, int rotary_dim, int lane) {
  const int half = rotary_dim / 2;
  for (int i = lane; i < half; i += 32) {
    numerics::rotate_pair(x[i], x[i + half], angles[2 * i], angles[2 * i + 1]);
  }
  __syncwarp();
}

__device__ __forceinline__ void transform(float* x, int dim, float factor, int lane) {
  for (int stride = 1; stride < dim; stride *= 2) {
    for (int i = lane; i < dim / 2; i += 32) {
      const int low = i / stride * 2 * stride + i % stride;
      const float a = x[low], b = x[low + stride];
      x[low] = a + b;
      x[low + stride] = a - b;
    }
    __syncwarp();
  }
  for (int d = lane; d < dim; d += 32) x[d] *= factor;
  __syncwarp();
}

// Rounds x to the cache's format, into a token's slot of a record.
__device__ __forceinline__ void store(const PageLayout& layout, int bits, const float* x,
                                      uint8_t* record, bool value, int slot, int lane) {
  const int dim = layout.head_dim;
  if (layout.kind != KvKind::kInt) {
    for (int d = lane; d < dim; d += 32) {
      uint8_t* to = record + layout.place(value, slot, d).byte;
      if (layout.kind == KvKind::kF32) {
        *reinterpret_cast<float*>(to) = x[d];
      } else {
        *reinterpret_cast<__half*>(to) = __float2half_rn(x[d]);
      }
    }
    return;
  }
  float low = x[0], high = x[0];
  for (int d = lane; d < dim; d += 32) {
    low = fminf(low, x[d]);
    high = fmaxf(high, x[d]);
  }
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    low = fminf(low, __shfl_xor_sync(0xffffffffu, low, lanes));
    high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, lanes));
  }
  const numerics::KvRange range = numerics::kv_range(low, high, bits);
  const __half2 rounded = __halves2half2(__float2half_rn(range.scale), __float2half_rn(range.min));
  if (lane == 0) *reinterpret_cast<__half2*>(record + layout.scale(value, slot)) = rounded;
  const float2 scale = __half22float2(rounded);
  const float inverse = scale.x == 0.0f ? 0.0f : 1.0f / scale.x;
  if (layout.bits == 8) {
    for (int d = lane; d < dim; d += 32) {
      record[layout.place(value, slot, d).byte] =
          static_cast<uint8_t>(numerics::kv_code(x[d], scale.y, inverse, bits));
    }
    return;
  }
  for (int i = lane; i < dim / 2; i += 32) {
    const int d = layout.low_channel(value, i), pair = d + layout.pair_distance(value);
    record[layout.place(value, slot, d).byte] =
        static_cast<uint8_t>(numerics::kv_code(x[d], scale.y, inverse, bits) |
                             numerics::kv_code(x[pair], scale.y, inverse, bits) << 4);
  }
}

__global__ __launch_bounds__(kThreads) void rope_append_kernel(
    const __grid_constant__ RopeAppendParams p) {
  __shared__ float vectors[kWarps][kMostDim];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t token = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y) * kWarps + warp;
  const PageLayout& layout = p.cache.layout;
  const int kv_heads = p.cache.kv_heads, dim = layout.head_dim;
  const int all = p.heads + 2 * kv_heads, slot = p.slots[token];
  if (head >= all || slot < 0) return;
  const int64_t from = (token * all + head) * dim;
  float* x = vectors[warp];
  for (int d = lane; d < dim; d += 32) x[d] = element(p.qkv, p.halves, from + d);
  __syncwarp();
  const bool query = head < p.heads, value = head >= p.heads + kv_heads;
  const int kv_head = (head - p.heads) % kv_heads;
  if (!value) {
    const float* norm = query ? p.q_norm : p.k_norm;
    if (norm != nullptr) normalise(x, dim, norm, p.norm_eps, lane);
    rotate(x, p.cos_sin + static_cast<int64_t>(p.positions[token]) * p.rotary_dim, p.rotary_dim,
           lane);
    if (!query && p.k_mean != nullptr) {
      for (int d = lane; d < dim; d += 32) x[d] -= p.k_mean[kv_head * dim + d];
      __syncwarp();
    }
    if (p.hadamard != 0.0f) transform(x, dim, p.hadamard, lane);
  }
  if (query) {
    float* to = p.q + (token * p.heads + head) * dim;
    for (int d = lane; d < dim; d += 32) to[d] = x[d];
    return;
  }
  uint8_t* record = p.cache.records +
                    static_cast<int64_t>(slot / kPageTokens16) * p.cache.page_stride +
                    static_cast<int64_t>(kv_head) * p.cache.record_bytes;
  store(layout, p.bits, x, record, value, slot % kPageTokens16, lane);
}

}  // namespace

void launch_rope_append(const RopeAppendParams& params, cudaStream_t stream) {
  if (params.tokens == 0) return;
  ATOM_CHECK(params.cache.layout.head_dim <= kMostDim, "rope_append: head size");
  if (launch_rope_append_tiles(params, stream)) return;
  if (launch_rope_append_registers(params, stream)) return;
  const int heads = params.heads + 2 * params.cache.kv_heads;
  const dim3 grid(static_cast<unsigned>(params.tokens), blocks_for(heads, kWarps));
  launch(rope_append_kernel, grid, kThreads, 0, params, stream);
}

}  // namespace atom::cuda
