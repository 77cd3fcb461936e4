// silu_quantize: codes = INT8(silu(gate) * up), the inputs of w4a8 linears.
//   x [T, 2K] f16 or f32: gate, then up -> codes s8 in the GEMM's swizzled blocks (w4a8_layout.h),
//   a scale for the body and one for the outliers, the body's sum
// Work: a CTA a token; a thread has up to kChunks runs of 8 columns, kThreads runs apart, whose
// products stay in its registers until the maxima are known. Rounds: as ops/numerics.h, operation
// by operation. Bound: issue slots (about 40 an element), half of them the exponential and the
// division.
#include "backend/cuda/rows/codes.cuh"
#include "backend/cuda/rows/row_kernels.h"
#include "backend/cuda/runtime/elements.cuh"
#include "backend/cuda/runtime/launch.cuh"
#include "ops/numerics.h"

namespace atom::cuda {
namespace {

constexpr int kRun = 8;

template <class In, int kThreads, int kChunks>
__global__ __launch_bounds__(kThreads, 1024 / kThreads) void silu_quantize_kernel(
    const __grid_constant__ QuantizeParams p) {
  constexpr int kWarps = kThreads / 32;
  __shared__ float2 maxima[kWarps];
  __shared__ int sums[kWarps];
  wait_for_previous();
  let_next_start();
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int64_t token = blockIdx.x;
  const int runs = p.channels / kRun, body_runs = p.body / kRun;
  const In* gate = static_cast<const In*>(p.x) + token * 2 * p.channels;

  // All of a thread's halves are on their way at once; floats would not fit beside the products.
  constexpr bool kAhead = sizeof(In) == 2;
  RawElements<In, kRun> raw[kAhead ? kChunks : 1][2];
  const auto load = [&](int i) {
    const int run = i * kThreads + thread;
    if (run >= runs) return;
    raw[kAhead ? i : 0][0].load(gate + run * kRun);
    raw[kAhead ? i : 0][1].load(gate + p.channels + run * kRun);
  };
  if constexpr (kAhead) {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) load(i);
  }
  float v[kChunks][kRun];
  float2 top = make_float2(0, 0);  // of the body and of the outliers
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int run = i * kThreads + thread;
    if (run >= runs) continue;
    if constexpr (!kAhead) load(i);
    const auto& x = raw[kAhead ? i : 0];
    float most = 0;
#pragma unroll
    for (int e = 0; e < kRun; ++e) {
      v[i][e] = silu_mul(x[0][e], x[1][e]);
      most = fmaxf(most, fabsf(v[i][e]));
    }
    if (run < body_runs) {
      top.x = fmaxf(top.x, most);
    } else {
      top.y = fmaxf(top.y, most);
    }
  }
  top = make_float2(warp_max(top.x), warp_max(top.y));
  if (lane == 0) maxima[warp] = top;
  __syncthreads();
  top = lane < kWarps ? maxima[lane] : make_float2(0, 0);
  top = make_float2(warp_max(top.x), warp_max(top.y));
  const auto scale_of = [&p](float most, float clip) {
    return numerics::group_scale(-most, most, 8, ActRule::kSymmetric, clip);
  };
  const numerics::GroupScale body = scale_of(top.x, p.format.clip);
  const numerics::GroupScale outliers = scale_of(top.y, 1.0f);
  if (thread == 0) {
    p.scales[token] = body.scale;
    if (p.outlier_kind == OutlierKind::kInt8) p.outlier_scales[token] = outliers.scale;
  }
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int run = i * kThreads + thread;
    if (run >= runs) continue;
    const bool in_body = run < body_runs;
    const numerics::GroupScale& g = in_body ? body : outliers;
    const float limit = g.scale != 0.0f ? 127.0f : 0.0f;
    const uint2 words =
        make_uint2(quantize4({v[i][0], v[i][1], v[i][2], v[i][3]}, g.inverse, limit),
                   quantize4({v[i][4], v[i][5], v[i][6], v[i][7]}, g.inverse, limit));
    int64_t column = int64_t{run} * kRun;
    if (in_body) {
      sum = __dp4a(static_cast<int>(words.x), 0x01010101, sum);
      sum = __dp4a(static_cast<int>(words.y), 0x01010101, sum);
    } else {
      column += p.places.outlier_offset - p.body;
    }
    *reinterpret_cast<uint2*>(p.codes + w4a8::activation_offset(column / w4a8::kBlockCols, token,
                                                                column % w4a8::kBlockCols,
                                                                p.places.capacity)) = words;
  }
  sum = __reduce_add_sync(0xffffffffu, sum);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  if (warp != 0) return;
  sum = __reduce_add_sync(0xffffffffu, lane < kWarps ? sums[lane] : 0);
  if (lane == 0) p.sums[token] = sum;
}

template <class In, int kThreads, int kChunks>
void start(const QuantizeParams& p, cudaStream_t stream) {
  launch_chained(silu_quantize_kernel<In, kThreads, kChunks>, dim3(static_cast<unsigned>(p.tokens)),
                 kThreads, 0, p, stream);
}

template <class In>
void pick(const QuantizeParams& p, cudaStream_t stream) {
  const int runs = p.channels / kRun;
  if (runs <= 256 * 2) return start<In, 256, 2>(p, stream);
  if (runs <= 512 * 3) return start<In, 512, 3>(p, stream);
  return start<In, 1024, 4>(p, stream);
}

}  // namespace

bool launch_silu_quantize(const QuantizeParams& p, cudaStream_t stream) {
  const bool served = p.source == RowSource::kSilu && takes_int8_blocks(p.places.layout) &&
                      p.format.bits == 8 && p.format.rule == ActRule::kSymmetric &&
                      !p.format.search && p.group == p.body && p.channels % kRun == 0 &&
                      p.body % kRun == 0 && p.channels <= 1024 * 4 * kRun;
  if (!served) return false;
  if (p.halves) {
    pick<__half>(p, stream);
  } else {
    pick<float>(p, stream);
  }
  return true;
}

}  // namespace atom::cuda
