// byte_rows: rows become bytes with a scale every 32 columns, the inputs of byte_groups.cu, after
// RMSNorm or as they are.
//   x [T, K] f32 -> codes s8 [T, stride], scales f32 [T, K/32]
// Work: a CTA a token, whose thread keeps kRuns runs of 8 columns in registers: they are eight
// lanes of numerics::rms_factor, and four neighbours have a group. Rounds: as ops/numerics.h
// (compiled without contraction).   Bound: latency.
#include "backend/cuda/rows/codes.cuh"
#include "backend/cuda/rows/norm_sum.cuh"
#include "backend/cuda/rows/row_kernels.h"
#include "backend/cuda/runtime/launch.cuh"
#include "ops/numerics.h"

namespace atom::cuda {
namespace {

constexpr int kRun = 8, kThreads = 32 * kNormWarps;
constexpr int kGroup = 32, kGroupLanes = kGroup / kRun;
static_assert(kThreads * kRun == numerics::kNormLanes);

__device__ inline void load_run(float (&v)[kRun], const float* from) {
  const float4 a = *reinterpret_cast<const float4*>(from);
  const float4 b = *reinterpret_cast<const float4*>(from + 4);
  v[0] = a.x;
  v[1] = a.y;
  v[2] = a.z;
  v[3] = a.w;
  v[4] = b.x;
  v[5] = b.y;
  v[6] = b.z;
  v[7] = b.w;
}

template <int kRuns>
__global__ __launch_bounds__(kThreads) void byte_rows_kernel(
    const __grid_constant__ QuantizeParams p) {
  __shared__ float squares[kNormWarps];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int64_t token = blockIdx.x;
  const int runs = p.channels / kRun;
  const bool norm = p.source == RowSource::kNorm;
  const float* x = static_cast<const float*>(p.x) + token * p.channels;
  float weight[kRuns][kRun];
#pragma unroll
  for (int i = 0; i < kRuns; ++i) {
    const int run = i * kThreads + thread;
    if (norm && run < runs) load_run(weight[i], p.norm_weight + run * kRun);
  }
  wait_for_previous();
  let_next_start();

  float v[kRuns][kRun] = {};
#pragma unroll
  for (int i = 0; i < kRuns; ++i) {
    const int run = i * kThreads + thread;
    if (run < runs) load_run(v[i], x + run * kRun);
  }
  if (norm) {
    float lanes[kRun] = {};
#pragma unroll
    for (int i = 0; i < kRuns; ++i) {
#pragma unroll
      for (int e = 0; e < kRun; ++e) lanes[e] += v[i][e] * v[i][e];
    }
    const float sum = sum_of_lanes(lanes);
    if (lane == 0) squares[warp] = sum;
    __syncthreads();
    float sums[kNormWarps];
#pragma unroll
    for (int w = 0; w < kNormWarps; ++w) sums[w] = squares[w];
    const float factor = norm_factor(sums, p.channels, p.eps);
#pragma unroll
    for (int i = 0; i < kRuns; ++i) {
#pragma unroll
      for (int e = 0; e < kRun; ++e) v[i][e] = v[i][e] * factor * weight[i][e];
    }
  }
#pragma unroll
  for (int i = 0; i < kRuns; ++i) {
    float most = 0;
#pragma unroll
    for (int e = 0; e < kRun; ++e) most = fmaxf(most, fabsf(v[i][e]));
#pragma unroll
    for (int lanes = 1; lanes < kGroupLanes; lanes *= 2) {
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, lanes));
    }
    const int run = i * kThreads + thread;
    if (run >= runs) continue;
    const numerics::GroupScale g =
        numerics::group_scale(-most, most, 8, ActRule::kSymmetric, p.format.clip);
    const float limit = g.scale != 0.0f ? 127.0f : 0.0f;
    *reinterpret_cast<uint2*>(p.codes + token * p.places.stride + run * kRun) =
        make_uint2(quantize4({v[i][0], v[i][1], v[i][2], v[i][3]}, g.inverse, limit),
                   quantize4({v[i][4], v[i][5], v[i][6], v[i][7]}, g.inverse, limit));
    if (lane % kGroupLanes == 0) {
      p.scales[token * (p.channels / kGroup) + run / kGroupLanes] = g.scale;
    }
  }
}

template <int kRuns>
void start(const QuantizeParams& p, cudaStream_t stream) {
  launch_chained(byte_rows_kernel<kRuns>, dim3(static_cast<unsigned>(p.tokens)), kThreads, 0, p,
                 stream);
}

}  // namespace

bool launch_byte_rows(const QuantizeParams& p, cudaStream_t stream) {
  const ActFormat& format = p.format;
  if (p.source == RowSource::kSilu || p.halves || p.perm != nullptr || p.values != nullptr ||
      p.sums != nullptr || p.halves_out != nullptr || !format.quantized || format.bits != 8 ||
      format.grid != CodeGrid::kInt || format.rule != ActRule::kSymmetric || format.search ||
      p.group != kGroup || p.places.layout != LinearLayout::kRows || p.body != p.channels ||
      p.channels % kGroup != 0 || p.places.stride % kRun != 0) {
    return false;
  }
  if (p.channels <= 2 * kThreads * kRun) return start<2>(p, stream), true;
  if (p.channels <= 4 * kThreads * kRun) return start<4>(p, stream), true;
  return false;
}

}  // namespace atom::cuda
