// silu_quantize: codes = INT8(silu(gate) * up), the inputs of w4a8 linears.
//   x [T, 2K] f16 or f32: gate, then up -> codes s8 in the GEMM's swizzled blocks (w4a8_layout.h),
//   a scale for the body and one for the outliers, the body's sum
// Work: a CTA a token; a thread has up to kChunks runs of 8 columns, kThreads runs apart, whose
// products stay in its registers until the maxima are known. Rounds: as ops/numerics.h, operation
// by operation. Bound: issue slots (about 40 an element), half of them the exponential and the
// division.
#include "backend/cuda/rows/silu_runs.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

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
  const int runs = p.channels / kRun;
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
    add_magnitude(silu_run(x[0], x[1], v[i]), run, p, top);
  }
  top = make_float2(warp_max(top.x), warp_max(top.y));
  if (lane == 0) maxima[warp] = top;
  __syncthreads();
  top = lane < kWarps ? maxima[lane] : make_float2(0, 0);
  top = make_float2(warp_max(top.x), warp_max(top.y));
  const RowScales scales = row_scales(top, p);
  if (thread == 0) store_scales(scales, token, p);
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int run = i * kThreads + thread;
    if (run < runs) sum += store_run(v[i], scales, run, token, p);
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

bool serves_silu_runs(const QuantizeParams& p) {
  return p.source == RowSource::kSilu && takes_int8_blocks(p.places.layout) && p.format.bits == 8 &&
         p.format.rule == ActRule::kSymmetric && !p.format.search && p.group == p.body &&
         p.channels % kRun == 0 && p.body % kRun == 0 && p.channels <= 1024 * 4 * kRun;
}

bool launch_silu_quantize(const QuantizeParams& p, cudaStream_t stream) {
  if (!serves_silu_runs(p)) return false;
  if (p.halves) {
    pick<__half>(p, stream);
  } else {
    pick<float>(p, stream);
  }
  return true;
}

}  // namespace atom::cuda
