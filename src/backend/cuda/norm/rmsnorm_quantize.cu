// rmsnorm_quantize: codes = quantize(gather(rmsnorm(x))), one pass over memory.
//   x     [T, D] f16, bf16 or f32     perm [D] u16     weight [D] f32
//   codes s8 in the GEMM's swizzled blocks (w4a8_layout.h), two scales and the body's sum a token
// Work: a CTA takes every gridDim-th token. What depends on the column alone stays in registers:
// where a thread's columns come from, and their weights. Two rows lie in shared memory, the next
// one brought by the copy engine while the current one is worked on:
//
//   row --LDS.128--> squares, summed in the lanes of ops/numerics.h   -> factor      (barrier)
//   row --gather---> a warp a block of 128 columns, floats in registers -> two maxima (barrier)
//                    -> codes, the block's 128 bytes in one store
// Requires: D a multiple of 16, the outliers of 4.   Rounds: as ops/numerics.h, operation by
// operation. Bound: issue slots (about 16 instructions an element) close to HBM; the latency of one
// row for few tokens.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "backend/cuda/norm/norm_kernels.h"
#include "backend/cuda/ptx/sync.cuh"

namespace atom::cuda::norm {
namespace {

constexpr float kTiny = 0x1p-100f, kHuge = 0x1p120f;  // numerics::kTiny, kHuge
constexpr int kLaneGroups = 8;                        // numerics::kNormLanes / 256

// scale and 1 / scale of a symmetric INT8 group, as numerics::group_scale.
__device__ inline float2 group_scale(float absmax, float step) {
  if (!(absmax >= kTiny && absmax <= kHuge)) return make_float2(0, 0);
  const float scale = __fmul_rn(absmax, step);
  return make_float2(scale, __frcp_rn(scale));
}

template <int kCount>
__device__ float halving_sum(float (&v)[kCount]) {
#pragma unroll
  for (int step = kCount / 2; step > 0; step /= 2) {
#pragma unroll
    for (int i = 0; i < step; ++i) v[i] = __fadd_rn(v[i], v[i + step]);
  }
  return v[0];
}

// Magnitudes order like their bits.
__device__ inline float warp_max(float magnitude) {
  return __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(magnitude)));
}

// This lane's eight lanes of numerics::rms_factor's group, added.
template <class In>
__device__ float eight_lanes(const uint8_t* row, int channels, int group, int lane) {
  float lanes[8] = {};
#pragma unroll 2
  for (int at = (group * 32 + lane) * 8; at < channels; at += kLaneGroups * 256) {
    uint4 raw[sizeof(In) / 2];
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(In) / 2); ++i) {
      raw[i] = *reinterpret_cast<const uint4*>(row + at * static_cast<int>(sizeof(In)) + 16 * i);
    }
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      const auto v = static_cast<float>(reinterpret_cast<const In*>(raw)[e]);
      lanes[e] = __fadd_rn(lanes[e], __fmul_rn(v, v));
    }
  }
  return halving_sum(lanes);
}

// The factor from the sum of all lanes.
__device__ inline float rms_factor_of(float sum, const Params& p) {
  return __frcp_rn(__fsqrt_rn(__fadd_rn(__fmul_rn(sum, p.inverse_channels), p.eps)));
}

// Four codes in a word. Adding 1.5 * 2^23 rounds to an integer, half to even, and leaves it in the
// low bits.
__device__ inline uint32_t quantize4(const float (&v)[4], float inverse) {
  uint32_t code[4];
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const float q = fminf(fmaxf(__fmul_rn(v[e], inverse), -127.0f), 127.0f);
    code[e] = __float_as_uint(__fadd_rn(q, 12582912.0f));
  }
  return __byte_perm(__byte_perm(code[0], code[1], 0x0040), __byte_perm(code[2], code[3], 0x0040),
                     0x5410);
}

// What the warps of a CTA tell each other; two of each, so that a barrier a row suffices for each.
template <int kWarps>
struct Shared {
  uint64_t full[2];
  float squares[2][kLaneGroups];
  float2 maxima[2][kWarps];
  int sums[2][kWarps];
};

// CTAs that a multiprocessor's registers are shared out to: a thread has 12 a block of columns.
constexpr int resident(int threads, int blocks) {
  return (blocks > 4 ? 512 : blocks > 2 ? 768 : 1024) / threads;
}

// kBlocks: blocks of 128 columns of a warp.
template <class In, int kThreads, int kBlocks>
__global__ __launch_bounds__(kThreads, resident(kThreads, kBlocks)) void rmsnorm_quantize_kernel(
    const __grid_constant__ Params p) {
  constexpr int kWarps = kThreads / 32;
  constexpr int kOwnGroups = kLaneGroups > kWarps ? kLaneGroups / kWarps : 1;
  extern __shared__ __align__(128) uint8_t rows[];
  __shared__ Shared<kWarps> s;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int body = p.channels - p.outliers;
  const int row_bytes = p.channels * static_cast<int>(sizeof(In));
  const int stage_bytes = row_bytes + 128;  // a zero behind each row, for padding
  const auto block = [&](int i) { return i * kWarps + warp; };

  const auto fetch = [&](int token, int stage) {
    if (token >= p.tokens) return;
    const uint32_t full = ptx::shared_address(&s.full[stage]);
    ptx::barrier_expect(full, static_cast<uint32_t>(row_bytes));
    ptx::bulk_copy(ptx::shared_address(rows + stage * stage_bytes),
                   static_cast<const uint8_t*>(p.x) + static_cast<int64_t>(token) * row_bytes,
                   static_cast<uint32_t>(row_bytes), full);
  };
  const int first = static_cast<int>(blockIdx.x), step = static_cast<int>(gridDim.x);
  if (thread == 0) {
    for (int i = 0; i < 2; ++i) {
      ptx::barrier_init(ptx::shared_address(&s.full[i]), 1);
      *reinterpret_cast<float4*>(rows + i * stage_bytes + row_bytes) = float4{};
    }
    ptx::barrier_init_fence();
    fetch(first, 0);
    fetch(first + step, 1);
  }
  // This lane's four columns of each block: the byte in the row, and the weight.
  uint32_t from[kBlocks][4];
  float weight[kBlocks][4];
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
    const bool in_body = block(i) < p.body_blocks;
    const int column = (in_body ? block(i) : block(i) - p.body_blocks) * 128 + 4 * lane;
    const bool real = column < (in_body ? body : p.outliers);
    uint2 sources = make_uint2(0, 0);
    if (real) sources = *reinterpret_cast<const uint2*>(p.perm + column + (in_body ? 0 : body));
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const uint32_t pair = e < 2 ? sources.x : sources.y;
      const uint32_t source = e % 2 ? pair >> 16 : pair & 0xffffu;
      from[i][e] =
          real ? source * static_cast<uint32_t>(sizeof(In)) : static_cast<uint32_t>(row_bytes);
      weight[i][e] = real ? p.weight[source] : 0.0f;
    }
  }
  __syncthreads();

  int before = -1;  // the token whose sum is still in parts
  // Row number `turn` of this CTA, in stage turn % 2.
  const auto work = [&](int token, int turn, int stage) {
    const uint8_t* row = rows + stage * stage_bytes;
    ptx::barrier_wait(ptx::shared_address(&s.full[stage]), static_cast<uint32_t>(turn / 2 % 2));
#pragma unroll
    for (int g = 0; g < kOwnGroups; ++g) {
      const int group = g * kWarps + warp;
      if (group >= kLaneGroups) break;
      float sum = eight_lanes<In>(row, p.channels, group, lane);
#pragma unroll
      for (int lanes_away = 16; lanes_away > 0; lanes_away /= 2) {
        sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, lanes_away));
      }
      if (lane == 0) s.squares[stage][group] = sum;
    }
    float v[kBlocks][4];
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        v[i][e] = static_cast<float>(*reinterpret_cast<const In*>(row + from[i][e]));
      }
    }
    __syncthreads();  // all have read the row
    if (thread == 0) fetch(token + 2 * step, stage);
    if (thread == 0 && before >= 0) {
      int sum = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) sum += s.sums[stage ^ 1][w];
      p.sums[before] = sum;
    }
    float groups[kLaneGroups];
#pragma unroll
    for (int g = 0; g < kLaneGroups; ++g) groups[g] = s.squares[stage][g];
    const float factor = rms_factor_of(halving_sum(groups), p);
    float2 top = make_float2(0, 0);  // of the body and of the outliers
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      float most = 0;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        v[i][e] = __fmul_rn(__fmul_rn(v[i][e], factor), weight[i][e]);
        most = fmaxf(most, fabsf(v[i][e]));
      }
      if (block(i) < p.body_blocks) {
        top.x = fmaxf(top.x, most);
      } else {
        top.y = fmaxf(top.y, most);
      }
    }
    top = make_float2(warp_max(top.x), warp_max(top.y));
    if (lane == 0) s.maxima[stage][warp] = top;
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float2 other = s.maxima[stage][w];
      top = make_float2(fmaxf(top.x, other.x), fmaxf(top.y, other.y));
    }
    const float2 body_scale = group_scale(top.x, p.step);
    const float2 outlier_scale = group_scale(top.y, p.outlier_step);
    if (thread == 0) {
      p.scales[token] = body_scale.x;
      p.outlier_scales[token] = outlier_scale.x;
    }
    int sum = 0;
    int8_t* to = p.codes + (static_cast<int64_t>(warp) * p.capacity + token) * 128 +
                 ((lane / 4) ^ (token % 8)) * 16 + lane % 4 * 4;
#pragma unroll
    for (int i = 0; i < kBlocks; ++i, to += kWarps * p.capacity * 128) {
      if (block(i) >= p.blocks) break;
      const bool in_body = block(i) < p.body_blocks;
      const float inverse = in_body ? body_scale.y : outlier_scale.y;
      const uint32_t word = quantize4(v[i], inverse);
      if (in_body) sum = __dp4a(static_cast<int>(word), 0x01010101, sum);
      *reinterpret_cast<uint32_t*>(to) = word;
    }
    sum = __reduce_add_sync(0xffffffffu, sum);
    if (lane == 0) s.sums[stage][warp] = sum;
    before = token;
  };
  int turn = 0;
  for (int token = first; token < p.tokens; token += 2 * step, turn += 2) {
    work(token, turn, 0);
    if (token + step < p.tokens) work(token + step, turn + 1, 1);
  }
  __syncthreads();
  if (thread == 0 && before >= 0) {
    const int last = (before - first) / step % 2;
    int sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += s.sums[last][w];
    p.sums[before] = sum;
  }
}

template <class In, int kThreads, int kBlocks>
void start(const Params& p, cudaStream_t stream) {
  const auto kernel = rmsnorm_quantize_kernel<In, kThreads, kBlocks>;
  const int bytes = 2 * (p.channels * static_cast<int>(sizeof(In)) + 128);
  (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  // Enough CTAs to fill the chip, and no more, so that each keeps its registers' contents.
  int ctas = 1;
  (void)cudaOccupancyMaxActiveBlocksPerMultiprocessor(&ctas, kernel, kThreads,
                                                      static_cast<size_t>(bytes));
  ctas = min(p.tokens, p.sms * max(ctas, 1));
  kernel<<<static_cast<unsigned>(ctas), kThreads, static_cast<size_t>(bytes), stream>>>(p);
}

template <class In>
void pick(const Params& p, cudaStream_t stream) {
  if (p.blocks <= 16) return start<In, 128, 4>(p, stream);
  if (p.blocks <= 32) return start<In, 256, 4>(p, stream);
  if (p.blocks <= 40) return start<In, 256, 5>(p, stream);
  if (p.blocks <= 64) return start<In, 512, 4>(p, stream);
  return start<In, 512, 7>(p, stream);
}

}  // namespace

void launch(const Params& params, int type, cudaStream_t stream) {
  if (type == 0) return pick<__half>(params, stream);
  if (type == 1) return pick<__nv_bfloat16>(params, stream);
  return pick<float>(params, stream);
}

}  // namespace atom::cuda::norm
