// rmsnorm_quantize: codes = quantize(gather(rmsnorm(x))), one pass over memory.
//   x     [T, D] f16, bf16 or f32     perm [D] u16     weight [D] f32
//   codes s8 in the GEMM's swizzled blocks (w4a8_layout.h), two scales and the body's sum a token
// Work: a CTA takes every gridDim-th token and keeps its part of perm and weight in registers; the
// next row is on its way while the current one is worked on:
//
//   row -> registers -> mean square (in double, as every backend has it) -> normalised into shared
//   memory -> gathered into registers -> two maxima over the CTA -> codes, 16 bytes a store
// Requires: D and the outliers multiples of 16.   Rounds: as ops/numerics.h, operation by operation.
// Bound: HBM from a few hundred tokens on, the latency of one row below.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "backend/cuda/norm/norm_kernels.h"

namespace atom::cuda::norm {
namespace {

constexpr float kTiny = 0x1p-100f;  // numerics::kTiny

// Eight elements as they came.
template <class In>
struct Raw8 {
  uint4 words[sizeof(In) / 2];

  __device__ void load(const In* from) {
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(In) / 2); ++i) {
      words[i] = __ldcs(reinterpret_cast<const uint4*>(from) + i);
    }
  }
  __device__ float operator[](int i) const {
    return static_cast<float>(reinterpret_cast<const In*>(words)[i]);
  }
};

// scale and 1 / scale of a symmetric INT8 group, as numerics::group_scale.
__device__ inline float2 group_scale(float absmax, float step) {
  if (!(absmax >= kTiny)) return make_float2(0, 0);
  const float scale = __fmul_rn(absmax, step);
  return make_float2(scale, __frcp_rn(scale));
}

// kRuns: runs of 16 channels a thread, at most; read as twice as many runs of 8.
template <class In, int kThreads, int kRuns>
__global__ __launch_bounds__(kThreads) void rmsnorm_quantize_kernel(const __grid_constant__ Params p) {
  constexpr int kWarps = kThreads / 32;
  extern __shared__ __align__(16) float row[];
  __shared__ double squares[kWarps];
  __shared__ float2 maxima[kWarps];
  __shared__ int sums[kWarps];
  __shared__ float shared_factor;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int body = p.channels - p.outliers;
  const auto source = [&](int i) { return (i * kThreads + thread) * 8; };
  const auto gathered = [&](int r) { return (r * kThreads + thread) * 16; };

  Raw8<In> x[2 * kRuns];
  const auto fetch = [&](int token) {
#pragma unroll
    for (int i = 0; i < 2 * kRuns; ++i) {
      if (token < p.tokens && source(i) < p.channels) {
        x[i].load(static_cast<const In*>(p.x) + static_cast<int64_t>(token) * p.channels + source(i));
      }
    }
  };
  fetch(static_cast<int>(blockIdx.x));
  float4 weight[2 * kRuns][2];
  uint4 perm[kRuns][2];
#pragma unroll
  for (int i = 0; i < 2 * kRuns; ++i) {
    if (source(i) >= p.channels) break;
    weight[i][0] = *reinterpret_cast<const float4*>(p.weight + source(i));
    weight[i][1] = *reinterpret_cast<const float4*>(p.weight + source(i) + 4);
  }
#pragma unroll
  for (int r = 0; r < kRuns; ++r) {
    if (gathered(r) >= p.channels) break;
    perm[r][0] = *reinterpret_cast<const uint4*>(p.perm + gathered(r));
    perm[r][1] = *reinterpret_cast<const uint4*>(p.perm + gathered(r) + 8);
  }

  int before = -1;  // the token whose sum is still in parts
  const auto finish_sum = [&] {
    if (thread != 0 || before < 0) return;
    int sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += sums[w];
    p.sums[before] = sum;
  };
  for (int token = static_cast<int>(blockIdx.x); token < p.tokens;
       token += static_cast<int>(gridDim.x)) {
    double square = 0;
#pragma unroll
    for (int i = 0; i < 2 * kRuns; ++i) {
      if (source(i) >= p.channels) break;
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const auto value = static_cast<double>(x[i][e]);
        square = fma(value, value, square);
      }
    }
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      square += __shfl_xor_sync(0xffffffffu, square, lanes);
    }
    if (lane == 0) squares[warp] = square;
    __syncthreads();
    finish_sum();
    if (warp == 0) {
      // Division and root in double are dear: once for the CTA.
      square = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) square += squares[w];
      if (lane == 0) shared_factor = static_cast<float>(1.0 / sqrt(square / p.channels + p.eps));
    }
    __syncthreads();
    const float factor = shared_factor;
#pragma unroll
    for (int i = 0; i < 2 * kRuns; ++i) {
      if (source(i) >= p.channels) break;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float4 w = weight[i][half];
        *reinterpret_cast<float4*>(row + source(i) + 4 * half) =
            make_float4(__fmul_rn(__fmul_rn(x[i][4 * half], factor), w.x),
                        __fmul_rn(__fmul_rn(x[i][4 * half + 1], factor), w.y),
                        __fmul_rn(__fmul_rn(x[i][4 * half + 2], factor), w.z),
                        __fmul_rn(__fmul_rn(x[i][4 * half + 3], factor), w.w));
      }
    }
    fetch(token + static_cast<int>(gridDim.x));
    __syncthreads();

    float v[kRuns][16];
    float2 top = make_float2(0, 0);  // of the body and of the outliers
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      if (gathered(r) >= p.channels) break;
      const auto* pairs = reinterpret_cast<const uint32_t*>(perm[r]);
      float most = 0;
#pragma unroll
      for (int e = 0; e < 16; ++e) {
        v[r][e] = row[e % 2 ? pairs[e / 2] >> 16 : pairs[e / 2] & 0xffff];
        most = fmaxf(most, fabsf(v[r][e]));
      }
      if (gathered(r) < body) {
        top.x = fmaxf(top.x, most);
      } else {
        top.y = fmaxf(top.y, most);
      }
    }
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      top.x = fmaxf(top.x, __shfl_xor_sync(0xffffffffu, top.x, lanes));
      top.y = fmaxf(top.y, __shfl_xor_sync(0xffffffffu, top.y, lanes));
    }
    if (lane == 0) maxima[warp] = top;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      top.x = fmaxf(top.x, maxima[w].x);
      top.y = fmaxf(top.y, maxima[w].y);
    }
    const float2 body_scale = group_scale(top.x, p.step);
    const float2 outlier_scale = group_scale(top.y, p.outlier_step);
    if (thread == 0) {
      p.scales[token] = body_scale.x;
      p.outlier_scales[token] = outlier_scale.x;
    }

    int sum = 0;
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      const int at = gathered(r);
      if (at >= p.channels) break;
      const bool in_body = at < body;
      const float inverse = in_body ? body_scale.y : outlier_scale.y;
      uint32_t words[4];
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        int code[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float rounded = rintf(__fmul_rn(v[r][4 * q + e], inverse));
          code[e] = static_cast<int>(fminf(fmaxf(rounded, -127.0f), 127.0f));
        }
        words[q] = __byte_perm(__byte_perm(code[0], code[1], 0x0040),
                               __byte_perm(code[2], code[3], 0x0040), 0x5410);
        if (in_body) sum = __dp4a(static_cast<int>(words[q]), 0x01010101, sum);
      }
      const int column = in_body ? at : at - body;
      const int block = (in_body ? 0 : p.body_blocks) + column / 128;
      int8_t* to = p.codes + (block * p.capacity + token) * 128 + ((column / 16 % 8) ^ (token % 8)) * 16;
      *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
    }
    sum = __reduce_add_sync(0xffffffffu, sum);
    if (lane == 0) sums[warp] = sum;
    before = token;
  }
  __syncthreads();
  finish_sum();
}

template <class In, int kThreads, int kRuns>
void start(const Params& p, cudaStream_t stream) {
  const auto kernel = rmsnorm_quantize_kernel<In, kThreads, kRuns>;
  const int bytes = p.channels * 4;
  // Enough CTAs to fill the chip, and no more, so that each keeps its registers' contents.
  const int ctas = min(p.tokens, p.sms * (1024 / kThreads));
  (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  kernel<<<static_cast<unsigned>(ctas), kThreads, static_cast<size_t>(bytes), stream>>>(p);
}

template <class In>
void pick(const Params& p, cudaStream_t stream) {
  if (p.channels <= 128 * 16) return start<In, 128, 1>(p, stream);
  if (p.channels <= 256 * 16) return start<In, 256, 1>(p, stream);
  if (p.channels <= 512 * 16) return start<In, 512, 1>(p, stream);
  return start<In, 512, 2>(p, stream);
}

}  // namespace

void launch(const Params& params, int type, cudaStream_t stream) {
  if (type == 0) return pick<__half>(params, stream);
  if (type == 1) return pick<__nv_bfloat16>(params, stream);
  return pick<float>(params, stream);
}

}  // namespace atom::cuda::norm
