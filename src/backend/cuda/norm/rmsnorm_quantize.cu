// rmsnorm_quantize: codes = quantize(gather(rmsnorm(x))), one pass over memory.
//   x     [T, D] f16, bf16 or f32     perm [D] u16     weight [D] f32
//   codes s8 in the GEMM's swizzled blocks (w4a8_layout.h), two scales and the body's sum a token
// Work: a CTA takes every gridDim-th token and keeps its part of perm in registers; the next row is
// on its way while the current one is worked on:
//
//   row -> registers -> mean square (in double, as every backend has it) -> normalised into shared
//   memory -> gathered, a warp a block of 128 columns -> two maxima over the CTA -> codes, the
//   block's 128 bytes in one store
// Requires: D a multiple of 16, the outliers of 4.   Rounds: as ops/numerics.h, operation by
// operation. Bound: HBM from a few hundred tokens on, the latency of one row below.
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

// kRuns: pairs of runs of 8 channels a thread reads, at most.
template <class In, int kThreads, int kRuns>
__global__ __launch_bounds__(kThreads, 1024 / kThreads) void rmsnorm_quantize_kernel(
    const __grid_constant__ Params p) {
  constexpr int kWarps = kThreads / 32;
  constexpr int kBlocks = 4 * kRuns + 1;  // of 128 columns, a warp; one more where body or tail pad
  extern __shared__ __align__(16) float row[];
  __shared__ double squares[kWarps];
  __shared__ float2 maxima[kWarps];
  __shared__ int sums[kWarps];
  __shared__ float shared_factor;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int body = p.channels - p.outliers;
  const auto source = [&](int i) { return (i * kThreads + thread) * 8; };
  const auto block = [&](int i) { return i * kWarps + warp; };

  Raw8<In> x[2 * kRuns];
  const auto fetch = [&](int token) {
#pragma unroll
    for (int i = 0; i < 2 * kRuns; ++i) {
      if (token < p.tokens && source(i) < p.channels) {
        x[i].load(static_cast<const In*>(p.x) + static_cast<int64_t>(token) * p.channels +
                  source(i));
      }
    }
  };
  fetch(static_cast<int>(blockIdx.x));
  // Bytes in the row of this lane's four columns of each block; padding comes from a zero behind
  // it.
  uint2 perm[kBlocks];
  if (thread == 0) row[p.channels] = 0.0f;
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
    const bool in_body = block(i) < p.body_blocks;
    const int column = (in_body ? block(i) : block(i) - p.body_blocks) * 128 + 4 * lane;
    const auto nothing = static_cast<uint32_t>(p.channels) * 0x10001u;
    perm[i] = make_uint2(nothing, nothing);
    if (column < (in_body ? body : p.outliers)) {
      perm[i] = *reinterpret_cast<const uint2*>(p.perm + column + (in_body ? 0 : body));
    }
    // At most 12288 * 4: the halves do not reach into each other.
    perm[i].x *= 4;
    perm[i].y *= 4;
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
      // Within two ulp of the double 1 / sqrt(square / D + eps), which division and root would take
      // ten times as long to find: the same float but for one row in some 2^27.
      square = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) square += squares[w];
      if (lane == 0)
        shared_factor = static_cast<float>(rsqrt(fma(square, p.inverse_channels, p.eps)));
    }
    __syncthreads();
    const float factor = shared_factor;
#pragma unroll
    for (int i = 0; i < 2 * kRuns; ++i) {
      if (source(i) >= p.channels) break;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float4 w = *reinterpret_cast<const float4*>(p.weight + source(i) + 4 * half);
        *reinterpret_cast<float4*>(row + source(i) + 4 * half) =
            make_float4(__fmul_rn(__fmul_rn(x[i][4 * half], factor), w.x),
                        __fmul_rn(__fmul_rn(x[i][4 * half + 1], factor), w.y),
                        __fmul_rn(__fmul_rn(x[i][4 * half + 2], factor), w.z),
                        __fmul_rn(__fmul_rn(x[i][4 * half + 3], factor), w.w));
      }
    }
    fetch(token + static_cast<int>(gridDim.x));
    __syncthreads();

    float v[kBlocks][4];
    float2 top = make_float2(0, 0);  // of the body and of the outliers
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      float most = 0;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const uint32_t pair = e < 2 ? perm[i].x : perm[i].y;
        const uint32_t at = e % 2 ? pair >> 16 : pair & 0xffffu;
        v[i][e] = *reinterpret_cast<const float*>(reinterpret_cast<const uint8_t*>(row) + at);
        most = fmaxf(most, fabsf(v[i][e]));
      }
      const bool in_body = block(i) < p.body_blocks;
      top.x = fmaxf(top.x, in_body ? most : 0.0f);
      top.y = fmaxf(top.y, in_body ? 0.0f : most);
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
    for (int i = 0; i < kBlocks; ++i) {
      if (block(i) >= p.blocks) break;
      const bool in_body = block(i) < p.body_blocks;
      const float inverse = in_body ? body_scale.y : outlier_scale.y;
      uint32_t code[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        // Adding 1.5 * 2^23 rounds to an integer, half to even, and leaves it in the low bits.
        const float clamped = fminf(fmaxf(__fmul_rn(v[i][e], inverse), -127.0f), 127.0f);
        code[e] = __float_as_uint(__fadd_rn(clamped, 12582912.0f));
      }
      const uint32_t word = __byte_perm(__byte_perm(code[0], code[1], 0x0040),
                                        __byte_perm(code[2], code[3], 0x0040), 0x5410);
      if (in_body) sum = __dp4a(static_cast<int>(word), 0x01010101, sum);
      int8_t* to = p.codes + (block(i) * p.capacity + token) * 128 +
                   ((lane / 4) ^ (token % 8)) * 16 + lane % 4 * 4;
      *reinterpret_cast<uint32_t*>(to) = word;
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
  const int bytes = p.channels * 4 + 16;
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
