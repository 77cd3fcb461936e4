// int8_rows: rows become INT8 codes, the inputs of w4a8 and w8a8 linears.
//   x [T, K] f16 or f32, or [T, 2K], gate then up, for silu(gate) * up -> codes s8 in the GEMM's
//   swizzled blocks (w4a8_layout.h), a scale for the body and one for the outliers, the body's sum
// Work: a CTA a token; a thread has up to kChunks runs of 8 columns, as many runs apart as there
// are threads, which stay in its registers until the maxima are known. Rounds: as ops/numerics.h,
// operation by operation. Bound: latency for few tokens, memory for many; SiLU: issue slots (about
// 40 an element), half of them the exponential and the division.
#include "backend/cuda/rows/codes.cuh"
#include "backend/cuda/rows/row_kernels.h"
#include "backend/cuda/runtime/elements.cuh"
#include "backend/cuda/runtime/launch.cuh"
#include "ops/numerics.h"

namespace atom::cuda {
namespace {

constexpr int kRun = 8;

// Whether silu_mul_ordinary() serves all gates of a run. A NaN comes out as one either way.
__device__ bool ordinary(const RawElements<float, kRun>&) { return false; }
__device__ bool ordinary(const RawElements<__half, kRun>& gates) {
  const auto* pairs = reinterpret_cast<const __half2*>(gates.words);
  __half2 low = pairs[0], high = pairs[0];
#pragma unroll
  for (int i = 1; i < kRun / 2; ++i) {
    low = __hmin2(low, pairs[i]);
    high = __hmax2(high, pairs[i]);
  }
  const float2 least = __half22float2(low), most = __half22float2(high);
  return fminf(least.x, least.y) >= kLeastGate && fmaxf(most.x, most.y) <= 65504.0f;
}

// v = silu(gate) * up; returns the largest magnitude.
template <class In>
__device__ float silu_run(const RawElements<In, kRun>& gate, const RawElements<In, kRun>& up,
                          float (&v)[kRun]) {
  if (ordinary(gate)) {
#pragma unroll
    for (int e = 0; e < kRun; ++e) v[e] = silu_mul_ordinary(gate[e], up[e]);
  } else {
#pragma unroll
    for (int e = 0; e < kRun; ++e) v[e] = silu_mul(gate[e], up[e]);
  }
  float most = 0;
#pragma unroll
  for (int e = 0; e < kRun; ++e) most = fmaxf(most, fabsf(v[e]));
  return most;
}

__device__ float largest(const RawElements<float, kRun>& x) {
  float most = 0;
#pragma unroll
  for (int e = 0; e < kRun; ++e) most = fmaxf(most, fabsf(x[e]));
  return most;
}
__device__ float largest(const RawElements<__half, kRun>& x) {
  const auto* pairs = reinterpret_cast<const __half2*>(x.words);
  const __half2 most = __hmax2(__hmax2(__habs2(pairs[0]), __habs2(pairs[1])),
                               __hmax2(__habs2(pairs[2]), __habs2(pairs[3])));
  const float2 two = __half22float2(most);
  return fmaxf(0.0f, fmaxf(two.x, two.y));  // 0 where all are NaN
}

// A run between memory and its codes: load(), then magnitude(), then values().
template <class In, bool kSilu>
struct Run {  // of x as it is
  RawElements<In, kRun> x;

  __device__ void load(const QuantizeParams& p, int64_t token, int run) {
    x.load(static_cast<const In*>(p.x) + token * p.channels + run * kRun);
  }
  __device__ float magnitude() { return largest(x); }
  __device__ void values(float (&v)[kRun]) const {
#pragma unroll
    for (int e = 0; e < kRun; ++e) v[e] = x[e];
  }
};
template <class In>
struct Run<In, true> {  // of silu(gate) * up
  RawElements<In, kRun> gate, up;
  float products[kRun];

  __device__ void load(const QuantizeParams& p, int64_t token, int run) {
    const In* row = static_cast<const In*>(p.x) + token * 2 * p.channels + run * kRun;
    gate.load(row);
    up.load(row + p.channels);
  }
  __device__ float magnitude() { return silu_run(gate, up, products); }
  __device__ void values(float (&v)[kRun]) const {
#pragma unroll
    for (int e = 0; e < kRun; ++e) v[e] = products[e];
  }
};

// top: the largest magnitude of the body, and of the outliers.
__device__ void add_magnitude(float magnitude, int run, const QuantizeParams& p, float2& top) {
  if (run * kRun < p.body) {
    top.x = fmaxf(top.x, magnitude);
  } else {
    top.y = fmaxf(top.y, magnitude);
  }
}

struct RowScales {
  numerics::GroupScale body, outliers;
};
__device__ RowScales row_scales(float2 top, const QuantizeParams& p) {
  const auto scale_of = [](float most, float clip) {
    return numerics::group_scale(-most, most, 8, ActRule::kSymmetric, clip);
  };
  return {.body = scale_of(top.x, p.format.clip), .outliers = scale_of(top.y, 1.0f)};
}
__device__ void store_scales(const RowScales& scales, int64_t token, const QuantizeParams& p) {
  p.scales[token] = scales.body.scale;
  if (p.outlier_kind == OutlierKind::kInt8) p.outlier_scales[token] = scales.outliers.scale;
}

// Stores a run's codes; returns their sum, if they are the body's.
template <class In, bool kSilu>
__device__ int store_run(const Run<In, kSilu>& values, const RowScales& scales, int run,
                         int64_t token, const QuantizeParams& p) {
  float v[kRun];
  values.values(v);
  const bool in_body = run * kRun < p.body;
  const numerics::GroupScale& g = in_body ? scales.body : scales.outliers;
  const float limit = g.scale != 0.0f ? 127.0f : 0.0f;
  const uint2 words = make_uint2(quantize4({v[0], v[1], v[2], v[3]}, g.inverse, limit),
                                 quantize4({v[4], v[5], v[6], v[7]}, g.inverse, limit));
  const int64_t column = int64_t{run} * kRun + (in_body ? 0 : p.places.outlier_offset - p.body);
  *reinterpret_cast<uint2*>(p.codes + w4a8::activation_offset(column / w4a8::kBlockCols, token,
                                                              column % w4a8::kBlockCols,
                                                              p.places.capacity)) = words;
  if (!in_body) return 0;
  return __dp4a(static_cast<int>(words.y), 0x01010101,
                __dp4a(static_cast<int>(words.x), 0x01010101, 0));
}

// Threads that a multiprocessor has room for.
#if defined(__CUDA_ARCH__) && \
    (__CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200)
constexpr int kRoom = 1536;
#else
constexpr int kRoom = 2048;
#endif

// Threads of a multiprocessor by what a thread keeps: halves alone take few registers.
template <class In, bool kSilu, int kChunks>
constexpr int resident_threads() {
  if (kSilu || sizeof(In) != 2) return 1024;
  return kChunks <= 3 ? kRoom : 1536;
}

template <class In, bool kSilu, int kMostThreads, int kChunks>
__global__ __launch_bounds__(
    kMostThreads,
    resident_threads<In, kSilu, kChunks>() /
        kMostThreads) void int8_rows_kernel(const __grid_constant__ QuantizeParams p) {
  __shared__ float2 maxima[32];
  __shared__ int sums[32];
  wait_for_previous();
  let_next_start();
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int threads = static_cast<int>(blockDim.x), warps = threads / 32;
  const int64_t token = blockIdx.x;
  const int runs = p.channels / kRun;

  // All of a thread's halves are on their way at once; floats would not fit beside the products.
  constexpr bool kAhead = sizeof(In) == 2;
  Run<In, kSilu> own[kChunks];
  const auto load = [&](int i) {
    const int run = i * threads + thread;
    if (run < runs) own[i].load(p, token, run);
  };
  if constexpr (kAhead) {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) load(i);
  }
  float2 top = make_float2(0, 0);  // of the body and of the outliers
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int run = i * threads + thread;
    if constexpr (!kAhead) load(i);
    if (run < runs) add_magnitude(own[i].magnitude(), run, p, top);
  }
  top = make_float2(warp_max(top.x), warp_max(top.y));
  if (lane == 0) maxima[warp] = top;
  __syncthreads();
  top = lane < warps ? maxima[lane] : make_float2(0, 0);
  top = make_float2(warp_max(top.x), warp_max(top.y));
  const RowScales scales = row_scales(top, p);
  if (thread == 0) store_scales(scales, token, p);
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int run = i * threads + thread;
    if (run < runs) sum += store_run(own[i], scales, run, token, p);
  }
  sum = __reduce_add_sync(0xffffffffu, sum);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  if (warp != 0) return;
  sum = __reduce_add_sync(0xffffffffu, lane < warps ? sums[lane] : 0);
  if (lane == 0) p.sums[token] = sum;
}

constexpr int kFewTokens = 256;

template <class In, bool kSilu, int kMostThreads, int kChunks>
void start(const QuantizeParams& p, cudaStream_t stream) {
  // As many as have equal parts of the row.
  const int threads = (p.channels / kRun + 32 * kChunks - 1) / (32 * kChunks) * 32;
  launch_chained(int8_rows_kernel<In, kSilu, kMostThreads, kChunks>,
                 dim3(static_cast<unsigned>(p.tokens)), threads, 0, p, stream);
}

template <class In, bool kSilu>
void pick(const QuantizeParams& p, cudaStream_t stream) {
  const int runs = p.channels / kRun;
  if (runs <= 256 * 2) return start<In, kSilu, 256, 2>(p, stream);
  if constexpr (!kSilu) {  // few tokens: more threads for each
    const bool few = p.tokens <= kFewTokens || runs > 512 * (sizeof(In) == 2 ? 4 : 3);
    if (few && runs <= 1024 * 2) return start<In, kSilu, 1024, 2>(p, stream);
  }
  if (runs <= 512 * 3) return start<In, kSilu, 512, 3>(p, stream);
  if constexpr (!kSilu && sizeof(In) == 2) {
    if (runs <= 512 * 4) return start<In, kSilu, 512, 4>(p, stream);
  }
  return start<In, kSilu, 1024, 4>(p, stream);
}

}  // namespace

bool launch_int8_rows(const QuantizeParams& p, cudaStream_t stream) {
  const bool served =
      p.source != RowSource::kNorm && p.perm == nullptr && p.halves_out == nullptr &&
      p.format.quantized && takes_int8_blocks(p.places.layout) && p.format.bits == 8 &&
      p.format.rule == ActRule::kSymmetric && !p.format.search && p.group == p.body &&
      p.channels % kRun == 0 && p.body % kRun == 0 && p.channels <= 1024 * 4 * kRun;
  if (!served) return false;
  if (p.source == RowSource::kSilu) {
    p.halves ? pick<__half, true>(p, stream) : pick<float, true>(p, stream);
  } else {
    p.halves ? pick<__half, false>(p, stream) : pick<float, false>(p, stream);
  }
  return true;
}

}  // namespace atom::cuda
