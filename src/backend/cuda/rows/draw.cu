// draw: y[i] = the token drawn from the logits x's row i, step by step as ops/draw.h has it.
//   x [R, V] f32   draws [R]   y [R] i32
// Work: a CTA a row, which reads it again for each thing that it wants to know; only the first time
// comes from memory, as a rule:
//   1. the largest logit; a row that takes the argmax is done
//   2. top_k, top_p: the rank of the last token kept, by radix select, three digits of 10, 10, 9
//   bits.
//      A token's rank is how far below 1.0f the bits of its weight are: tokens spread evenly over
//      the first digit whatever the scale of the logits, 16 bins an octave of weight.
//        rank < 40 * 2^23   | digit 0 | digit 1 | digit 2 |    beyond: the whole weight is 0
//                           28       19         9         0
//      A bin sums weights (or counts tokens) in shared memory; where the sum over bins reaches what
//      is needed, the next digit looks into that bin.
//   3. sums of whole weights over chunks of the row, then the chunk and the token in it at which
//      they go beyond the random share.
// All sums are of integers: the order of adding does not matter, and a bin's two halves carry.
// Nothing is contracted (-fmad=false).   Bound: arithmetic of exp, ~40 instructions an element and
// pass; for few rows one SM's share.
#include "backend/cuda/rows/row_best.cuh"
#include "backend/cuda/rows/row_kernels.h"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / kWarpLanes;
constexpr int kMostChunks = 1024, kChunkUnit = 128;
constexpr int kBins = 1024;
constexpr uint32_t kOne = 0x3f800000;      // 1.0f
constexpr uint32_t kLastRank = 40u << 23;  // weight 2^-40
// Bits behind a digit.
__device__ constexpr int bits_behind(int digit) { return digit < 2 ? 19 - 10 * digit : 0; }
static_assert((kLastRank >> bits_behind(0)) < kBins && kFullWeight == uint64_t{1} << 40);

struct Crossing {
  int index;  // the number of values where there is none
  uint64_t before, value;
};

struct Shared {
  Place of_warps[kWarps];
  uint64_t warp_sums[kWarps];
  Crossing crossing;
  uint64_t chunk_sums[kMostChunks];
  uint32_t low[kBins], high[kBins];
};

__device__ uint32_t rank_of(float weight) { return kOne - __float_as_uint(weight); }

// What top_k and top_p leave: ranks below this one, of this one ids up to the last.
struct Limit {
  uint32_t rank = UINT32_MAX;
  int last_id = INT32_MAX;

  __device__ bool keeps(float weight, int id) const {
    const uint32_t own = rank_of(weight);
    return own < rank || (own == rank && id <= last_id);
  }
};

// The first of values 0..count - 1 at which their sum reaches `needed`, at least 1.
template <class Value>
__device__ Crossing find_crossing(int count, uint64_t needed, Shared& shared, const Value& value) {
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpLanes, warp = thread / kWarpLanes;
  const int each = (count + kThreads - 1) / kThreads;
  const int first = thread * each, end = min(first + each, count);
  uint64_t own = 0;
  for (int i = first; i < end; ++i) own += value(i);
  uint64_t sum = own;
#pragma unroll
  for (int lanes = 1; lanes < kWarpLanes; lanes *= 2) {
    const uint64_t other = __shfl_up_sync(0xffffffffu, sum, static_cast<unsigned>(lanes));
    if (lane >= lanes) sum += other;
  }
  if (lane == kWarpLanes - 1) shared.warp_sums[warp] = sum;
  if (thread == 0) shared.crossing = {count, 0, 0};
  __syncthreads();
  uint64_t before = sum - own;
  for (int w = 0; w < warp; ++w) before += shared.warp_sums[w];
  if (before < needed && needed <= before + own) {
    int i = first;
    uint64_t here = value(i);
    while (before + here < needed) {
      before += here;
      here = value(++i);
    }
    shared.crossing = {i, before, here};
  }
  __syncthreads();
  const Crossing found = shared.crossing;
  __syncthreads();
  return found;
}

// One row, read by one CTA.
class Row {
 public:
  __device__ Row(const float* x, int cols, float best, float scale, Shared& shared)
      : x_(x), cols_(cols), best_(best), scale_(scale), shared_(shared) {
    chunk_ = kChunkUnit * ((cols + kChunkUnit * kMostChunks - 1) / (kChunkUnit * kMostChunks));
    chunks_ = (cols + chunk_ - 1) / chunk_;
  }

  // Sums measure(weight, id) over the row, and over each chunk for find().
  template <class Measure>
  __device__ uint64_t sum(const Measure& measure) {
    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread % kWarpLanes, warp = thread / kWarpLanes;
    uint64_t of_warp = 0;
    for (int chunk = warp; chunk < chunks_; chunk += kWarps) {
      const int begin = chunk * chunk_, end = min(begin + chunk_, cols_);
      uint64_t sum = 0;
#pragma unroll 4
      for (int i = begin + lane; i < end; i += kWarpLanes) sum += measure(weight(i), i);
#pragma unroll
      for (int lanes = kWarpLanes / 2; lanes > 0; lanes /= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, lanes);
      }
      if (lane == 0) shared_.chunk_sums[chunk] = sum;
      of_warp += sum;
    }
    if (lane == 0) shared_.warp_sums[warp] = of_warp;
    __syncthreads();
    uint64_t total = 0;
    for (int w = 0; w < kWarps; ++w) total += shared_.warp_sums[w];
    __syncthreads();
    return total;
  }

  // The id at which the sum that sum() made reaches `needed`.
  template <class Measure>
  __device__ int find(uint64_t needed, const Measure& measure) {
    const Crossing chunk =
        find_crossing(chunks_, needed, shared_, [&](int i) { return shared_.chunk_sums[i]; });
    const int begin = chunk.index * chunk_;
    const auto in_chunk = [&](int i) { return measure(weight(begin + i), begin + i); };
    return begin +
           find_crossing(min(chunk_, cols_ - begin), needed - chunk.before, shared_, in_chunk)
               .index;
  }

  // The limit at which the sum of measure(weight) by rank, which does not depend on the id, reaches
  // `needed`.
  template <class Measure>
  __device__ Limit select(uint64_t needed, const Measure& measure) {
    uint32_t prefix = 0;
    Crossing bin = {};
    for (int digit = 0; digit < 3; ++digit) {
      const int upper = bits_behind(digit - 1), shift = bits_behind(digit);
      const int bins = 1 << (upper - shift);
      fill_bins(upper, shift, prefix, measure);
      bin = find_crossing(bins, needed, shared_, [&](int i) {
        return static_cast<uint64_t>(shared_.high[i]) << 32 | shared_.low[i];
      });
      if (bin.index == bins) return {};  // fewer tokens have a weight
      needed -= bin.before;
      prefix = prefix << (upper - shift) | static_cast<uint32_t>(bin.index);
    }
    const uint64_t each = measure(__uint_as_float(kOne - prefix));
    const uint64_t ties = (needed + each - 1) / each;
    if (ties * each == bin.value) return {.rank = prefix};
    const auto is_tie = [&](float weight, int) -> uint64_t { return rank_of(weight) == prefix; };
    sum(is_tie);
    return {.rank = prefix, .last_id = find(ties, is_tie)};
  }

 private:
  __device__ float weight(int i) const { return relative_weight(x_[i], best_, scale_); }

  // The bins of one digit, of the ranks whose digits before it are `prefix`.
  template <class Measure>
  __device__ void fill_bins(int upper, int shift, uint32_t prefix, const Measure& measure) {
    const int thread = static_cast<int>(threadIdx.x);
    for (int bin = thread; bin < kBins; bin += kThreads) shared_.low[bin] = shared_.high[bin] = 0;
    __syncthreads();
#pragma unroll 4
    for (int i = thread; i < cols_; i += kThreads) {
      const float own = weight(i);
      const uint32_t rank = rank_of(own);
      if (rank > kLastRank || rank >> upper != prefix) continue;
      const uint32_t bin = (rank >> shift) - (prefix << (upper - shift));
      const uint64_t value = measure(own);
      const auto low = static_cast<uint32_t>(value);
      const uint32_t old = atomicAdd(&shared_.low[bin], low);
      const uint32_t high = static_cast<uint32_t>(value >> 32) + (old + low < old ? 1 : 0);
      if (high != 0) atomicAdd(&shared_.high[bin], high);
    }
    __syncthreads();
  }

  const float* x_;
  int cols_;
  float best_, scale_;
  Shared& shared_;
  int chunk_, chunks_;
};

__device__ int draw_from(const float* x, int cols, const TokenDraw& draw, Shared& shared) {
  const Place best = best_of_row<kThreads>(x, cols, shared.of_warps);
  if (draw.scale == 0 || !isfinite(best.value)) return best.index;
  Row row(x, cols, best.value, draw.scale, shared);
  Limit limit;
  const auto kept = [&](float weight, int id) -> uint64_t {
    return limit.keeps(weight, id) ? whole_weight(weight) : 0;
  };
  if (draw.top_k > 0 && draw.top_k < cols) {
    limit = row.select(static_cast<uint64_t>(draw.top_k), [](float) { return uint64_t{1}; });
  }
  if (draw.top_p > 0) {
    limit = row.select(enough_weight(draw.top_p, row.sum(kept)),
                       [](float weight) { return whole_weight(weight); });
  }
  const auto left = [&](float weight, int id) -> uint64_t {
    const uint64_t own = kept(weight, id);
    return own >= draw.min_weight ? own : 0;
  };
  const uint64_t sum = row.sum(left);
  return row.find(share_of(draw.random, sum) + 1, left);
}

__global__ __launch_bounds__(kThreads) void draw_kernel(const __grid_constant__ ChooseParams p) {
  __shared__ Shared shared;
  wait_for_previous();
  let_next_start();
  const TokenDraw draw = p.draws[blockIdx.x];
  const int token = draw_from(p.x + static_cast<int64_t>(blockIdx.x) * p.cols,
                              static_cast<int>(p.cols), draw, shared);
  if (threadIdx.x == 0) p.y[blockIdx.x] = token;
}

}  // namespace

void launch_choose(const ChooseParams& params, cudaStream_t stream) {
  if (params.rows == 0) return;
  if (params.draws == nullptr) return launch_argmax(params, stream);
  launch_chained(draw_kernel, dim3(static_cast<unsigned>(params.rows)), kThreads, 0, params,
                 stream);
}

}  // namespace atom::cuda
