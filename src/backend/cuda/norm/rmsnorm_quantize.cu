// rmsnorm_quantize: codes = quantize(gather(rmsnorm(x))), one pass over memory; or without the
// norm.
//   x     [T, D] f16, bf16 or f32     perm [D] u16     weight [D] f32, gathered
//   codes s8 in the GEMM's swizzled blocks (w4a8_layout.h), two scales and the body's sum a token
// Work: a CTA takes every gridDim-th run of kRows tokens. What depends on the column alone stays in
// registers: where a thread's columns come from, and their weights. Two runs lie in shared memory,
// the next one brought by the copy engine while the current one is worked on:
//
//   rows --LDS.128--> squares, summed in the lanes of ops/numerics.h  -> factors     (barrier)
//   rows --gather---> a warp a block of 128 columns, floats in registers -> maxima   (barrier)
//                     -> codes, the block's 128 bytes in one store
//
// Two rows at a time share what a warp does once: half of its lanes reduce and scale for each.
// Requires: D a multiple of 16, the outliers of 4.   Rounds: as ops/numerics.h, operation by
// operation. Bound: latency, of a run's two barriers and of what a warp does once a run.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "backend/cuda/norm/norm_kernels.h"
#include "backend/cuda/ptx/sync.cuh"
#include "backend/cuda/rows/codes.cuh"
#include "backend/cuda/runtime/launch.cuh"

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

// Bytes from row to row in shared memory: rows of so many blocks, and unless there is no padding, a
// zero behind each.
template <class In>
constexpr int row_pitch(int blocks, bool whole) {
  return blocks * 128 * static_cast<int>(sizeof(In)) + (whole ? 0 : 128);
}

// The element at an address and a number of bytes in shared memory. Addresses that the compiler
// does not see through stay in their registers, where it would rather make them anew for each run.
__device__ inline float load_element(uint32_t address, int bytes, const float*) {
  float v;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(address + bytes));
  return v;
}
template <class In>
__device__ inline float load_element(uint32_t address, int bytes, const In*) {
  uint16_t v;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(address + bytes));
  return static_cast<float>(*reinterpret_cast<const In*>(&v));
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

// This lane's eight lanes of numerics::rms_factor's group, added. kChannels: of the row, where the
// compiler is to know them; else 0.
template <class In, int kChannels>
__device__ float eight_lanes(const uint8_t* row, int channels, int group, int lane) {
  constexpr int kStep = kLaneGroups * 256;
  float lanes[8] = {};
  const auto add = [&](int at) {
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
  };
  const int first = (group * 32 + lane) * 8;
  if constexpr (kChannels > 0 && kChannels % kStep == 0) {
#pragma unroll
    for (int at = 0; at < kChannels; at += kStep) add(first + at);
  } else {
#pragma unroll 2
    for (int at = first; at < channels; at += kStep) add(at);
  }
  return halving_sum(lanes);
}

// The factor from the sum of all lanes.
__device__ inline float rms_factor_of(float sum, const Params& p) {
  return __frcp_rn(__fsqrt_rn(__fadd_rn(__fmul_rn(sum, p.inverse_channels), p.eps)));
}

// The sums of kRows values over the lanes, halving: of row 0 in all lanes, or of row lane / 16.
template <int kRows>
__device__ float warp_sums(const float (&v)[kRows], int lane) {
  float sum = v[0];
  if constexpr (kRows == 2) {
    const bool second = lane >= 16;
    sum = second ? v[1] : v[0];
    sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, second ? v[0] : v[1], 16));
  } else {
    sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, 16));
  }
#pragma unroll
  for (int lanes = 8; lanes > 0; lanes /= 2) {
    sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, lanes));
  }
  return sum;
}

// What the warps of a CTA tell each other; two of each, so that a barrier a run suffices for each.
template <int kWarps, int kRows>
struct Shared {
  uint64_t full[2];
  alignas(16) float squares[2][kRows][kLaneGroups];
  alignas(16) float maxima[2][kWarps][2 * kRows];  // of each row's body and outliers
  int sums[2][kRows][kWarps];
};

// CTAs that a multiprocessor's registers are shared out to: a thread has 8 a block of columns, and
// 4 a block and row.
constexpr int resident(int threads, int blocks) { return (blocks > 4 ? 512 : 640) / threads; }

// kBlocks: blocks of 128 columns of a warp. kRows: 1 or 2. kWhole: the row has as many blocks as
// the warps take, none of them padded, and at most the last of a warp's is of outliers.
template <class In, bool kNorm, int kThreads, int kBlocks, int kRows, bool kWhole>
__global__ __launch_bounds__(kThreads, resident(kThreads, kBlocks)) void rmsnorm_quantize_kernel(
    const __grid_constant__ Params p) {
  constexpr int kWarps = kThreads / 32;
  constexpr int kOwnGroups = kLaneGroups > kWarps ? kLaneGroups / kWarps : 1;
  constexpr int kPitch = row_pitch<In>(kWarps * kBlocks, kWhole);
  extern __shared__ __align__(128) uint8_t rows[];
  __shared__ Shared<kWarps, kRows> s;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  constexpr int kChannels = kWhole ? kWarps * kBlocks * 128 : 0;
  const int channels = kWhole ? kChannels : p.channels;
  const int body = channels - p.outliers;
  const int row_bytes = channels * static_cast<int>(sizeof(In));
  const int first = static_cast<int>(blockIdx.x), step = static_cast<int>(gridDim.x);
  const int runs = (p.tokens + kRows - 1) / kRows;
  const auto block = [&](int i) { return i * kWarps + warp; };
  const auto in_body = [&](int i) {
    return kWhole && i < kBlocks - 1 ? true : block(i) < p.body_blocks;
  };
  const bool has_outliers = !in_body(kBlocks - 1);  // among this warp's blocks

  const auto fetch = [&](int run, int stage) {
    if (run >= runs) return;
    const int count = min(kRows, p.tokens - run * kRows);
    const uint32_t full = ptx::shared_address(&s.full[stage]);
    ptx::barrier_expect(full, static_cast<uint32_t>(count * row_bytes));
    const uint32_t to = ptx::shared_address(rows + stage * kRows * kPitch);
    const uint8_t* row = static_cast<const uint8_t*>(p.x) + int64_t{run} * kRows * row_bytes;
    if constexpr (kWhole) {
      ptx::bulk_copy(to, row, static_cast<uint32_t>(count * row_bytes), full);
    } else {
      for (int r = 0; r < count; ++r) {
        ptx::bulk_copy(to + r * kPitch, row + int64_t{r} * row_bytes,
                       static_cast<uint32_t>(row_bytes), full);
      }
    }
  };
  if (thread == 0) {
    for (int i = 0; i < 2; ++i) ptx::barrier_init(ptx::shared_address(&s.full[i]), 1);
    ptx::barrier_init_fence();
  }
  // Padding columns read a zero behind each row.
  if (!kWhole && thread < 2 * kRows) {
    *reinterpret_cast<float4*>(rows + thread * kPitch + row_bytes) = float4{};
  }
  // This lane's four columns of each block: their places in the first row, and weights.
  uint32_t from[kBlocks][4];
  float weight[kNorm ? kBlocks : 1][4];
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
    const int column = (in_body(i) ? block(i) : block(i) - p.body_blocks) * 128 + 4 * lane;
    const bool real = kWhole || column < (in_body(i) ? body : p.outliers);
    const int gathered = column + (in_body(i) ? 0 : body);
    uint2 sources = make_uint2(0, 0);
    if (real) sources = *reinterpret_cast<const uint2*>(p.perm + gathered);
    if constexpr (kNorm) {
      const float4 w = real ? *reinterpret_cast<const float4*>(p.weight + gathered) : float4{};
      weight[i][0] = w.x;
      weight[i][1] = w.y;
      weight[i][2] = w.z;
      weight[i][3] = w.w;
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const uint32_t pair = e < 2 ? sources.x : sources.y;
      const uint32_t source = e % 2 ? pair >> 16 : pair & 0xffffu;
      from[i][e] = ptx::shared_address(rows) + (real ? source * static_cast<uint32_t>(sizeof(In))
                                                     : static_cast<uint32_t>(row_bytes));
    }
    ptx::keep(from[i]);
  }
  wait_for_previous();
  let_next_start();
  if (warp == 0 && ptx::elect_one()) {
    fetch(first, 0);
    fetch(first + step, 1);
  }
  __syncthreads();

  // Where this lane's codes of row 0 go, but for the swizzle, and from block to block.
  int8_t* own_codes = p.codes + static_cast<int64_t>(warp) * p.capacity * 128 + lane % 4 * 4;
  const int64_t block_step = kWarps * p.capacity * 128;
  const auto finish_sums = [&](int run, int stage) {
    const int token = run * kRows + thread;
    if (thread >= kRows || token >= p.tokens) return;
    int sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += s.sums[stage][thread][w];
    p.sums[token] = sum;
  };
  int before = -1;  // the run whose sums are still in parts
  // Run number `turn` of this CTA, in stage turn % 2.
  const auto work = [&](int run, int turn, int stage) {
    const uint8_t* stage_rows = rows + stage * kRows * kPitch;
    ptx::barrier_wait(ptx::shared_address(&s.full[stage]), static_cast<uint32_t>(turn / 2 % 2));
    if constexpr (kNorm) {
#pragma unroll
      for (int g = 0; g < kOwnGroups; ++g) {
        const int group = g * kWarps + warp;
        if (group >= kLaneGroups) break;
        float squares[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          squares[r] = eight_lanes<In, kChannels>(stage_rows + r * kPitch, channels, group, lane);
        }
        const float sum = warp_sums<kRows>(squares, lane);
        if (lane % (32 / kRows) == 0) s.squares[stage][lane * kRows / 32][group] = sum;
      }
    }
    float v[kRows][kBlocks][4];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < kBlocks; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          v[r][i][e] = load_element(from[i][e], (stage * kRows + r) * kPitch,
                                    static_cast<const In*>(nullptr));
        }
      }
    }
    if constexpr (kNorm) {
      __syncthreads();  // all have read the rows
      if (warp == 0 && ptx::elect_one()) fetch(run + 2 * step, stage);
      if (before >= 0) finish_sums(before, stage ^ 1);
      // Each lane the factor of its row.
      float groups[kLaneGroups];
#pragma unroll
      for (int g = 0; g < kLaneGroups; ++g) groups[g] = s.squares[stage][lane * kRows / 32][g];
      const float own = rms_factor_of(halving_sum(groups), p);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float factor = kRows == 1 ? own : __shfl_sync(0xffffffffu, own, 16 * r);
#pragma unroll
        for (int i = 0; i < kBlocks; ++i) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            v[r][i][e] = __fmul_rn(__fmul_rn(v[r][i][e], factor), weight[i][e]);
          }
        }
      }
    }
    float top[2 * kRows] = {};  // of each row's body and outliers
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < kBlocks; ++i) {
        float most = 0;
#pragma unroll
        for (int e = 0; e < 4; ++e) most = fmaxf(most, fabsf(v[r][i][e]));
        if (in_body(i)) {
          top[2 * r] = fmaxf(top[2 * r], most);
        } else {
          top[2 * r + 1] = fmaxf(top[2 * r + 1], most);
        }
      }
      top[2 * r] = warp_max(top[2 * r]);
      if (has_outliers) top[2 * r + 1] = warp_max(top[2 * r + 1]);
    }
    if (lane == 0) {
#pragma unroll
      for (int k = 0; k < 2 * kRows; ++k) s.maxima[stage][warp][k] = top[k];
    }
    __syncthreads();
    if constexpr (!kNorm) {
      if (warp == 0 && ptx::elect_one()) fetch(run + 2 * step, stage);
      if (before >= 0) finish_sums(before, stage ^ 1);
    }
    // Lane k of every 2 * kRows the maximum k, of all warps, and its scale.
    const int kind = lane % (2 * kRows);
    float most = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) most = fmaxf(most, s.maxima[stage][w][kind]);
    const float2 scale = group_scale(most, kind % 2 == 0 ? p.step : p.outlier_step);
    const int token = run * kRows + kind / 2;
    if (thread < 2 * kRows && token < p.tokens) {
      (kind % 2 == 0 ? p.scales : p.outlier_scales)[token] = scale.x;
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int row = run * kRows + r;
      if (row >= p.tokens) break;
      const float body_inverse = __shfl_sync(0xffffffffu, scale.y, 2 * r);
      const float outlier_inverse = __shfl_sync(0xffffffffu, scale.y, 2 * r + 1);
      int sum = 0;
      int8_t* to = own_codes + int64_t{row} * 128 + ((lane / 4) ^ (row & 7)) * 16;
#pragma unroll
      for (int i = 0; i < kBlocks; ++i, to += block_step) {
        if (!kWhole && block(i) >= p.blocks) break;
        const float inverse = in_body(i) ? body_inverse : outlier_inverse;
        const uint32_t word = quantize4(v[r][i], inverse, inverse == 0.0f ? 0.0f : 127.0f);
        if (in_body(i)) sum = __dp4a(static_cast<int>(word), 0x01010101, sum);
        *reinterpret_cast<uint32_t*>(to) = word;
      }
      sum = __reduce_add_sync(0xffffffffu, sum);
      if (lane == 0) s.sums[stage][r][warp] = sum;
    }
    before = run;
  };
  int turn = 0;
  for (int run = first; run < runs; run += 2 * step, turn += 2) {
    work(run, turn, 0);
    if (run + step < runs) work(run + step, turn + 1, 1);
  }
  __syncthreads();
  if (before >= 0) finish_sums(before, (before - first) / step % 2);
}

template <class In, bool kNorm, int kThreads, int kBlocks, int kRows>
void start(const Params& p, cudaStream_t stream) {
  constexpr int kAll = kThreads / 32 * kBlocks;
  const bool whole = p.blocks == kAll && p.channels == kAll * 128 &&
                     p.body_blocks >= kThreads / 32 * (kBlocks - 1);
  const auto kernel = whole ? rmsnorm_quantize_kernel<In, kNorm, kThreads, kBlocks, kRows, true>
                            : rmsnorm_quantize_kernel<In, kNorm, kThreads, kBlocks, kRows, false>;
  const int bytes = 2 * kRows * row_pitch<In>(kAll, whole);
  (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  // Enough CTAs to fill the chip, and no more, so that each keeps its registers' contents.
  int ctas = 1;
  (void)cudaOccupancyMaxActiveBlocksPerMultiprocessor(&ctas, kernel, kThreads,
                                                      static_cast<size_t>(bytes));
  ctas = min((p.tokens + kRows - 1) / kRows, p.sms * max(ctas, 1));
  launch_chained(kernel, dim3(static_cast<unsigned>(ctas)), kThreads, bytes, p, stream);
}

// Few tokens: a row a CTA, all at once.
template <class In, bool kNorm>
void pick(const Params& p, cudaStream_t stream) {
  const bool few = p.tokens <= 3 * p.sms;
  if (p.blocks <= 16) return start<In, kNorm, 128, 4, 1>(p, stream);
  if (p.blocks <= 32) {
    return few ? start<In, kNorm, 256, 4, 1>(p, stream) : start<In, kNorm, 256, 4, 2>(p, stream);
  }
  if (p.blocks <= 40) return start<In, kNorm, 256, 5, 1>(p, stream);
  if (p.blocks <= 64) {
    return few ? start<In, kNorm, 512, 4, 1>(p, stream) : start<In, kNorm, 512, 4, 2>(p, stream);
  }
  start<In, kNorm, 512, 7, 1>(p, stream);
}

}  // namespace

void launch(const Params& params, int type, cudaStream_t stream) {
  if (!params.norm) return pick<float, false>(params, stream);
  if (type == 0) return pick<__half, true>(params, stream);
  if (type == 1) return pick<__nv_bfloat16, true>(params, stream);
  return pick<float, true>(params, stream);
}

}  // namespace atom::cuda::norm
