// route: sends each token to the experts of its largest scores and sorts the rows by expert.
//   scores [T, E] f32  -> chosen, rows, weights [T, A], tokens [T A], offsets [E + 1]
//   (routing_view.h)
// Work: a warp a token chooses; then an expert counts how many choices fell on lower experts, which
// is where its rows begin, and numbers its own in the order of the tokens. Few tokens: all in one
// CTA, a warp an expert; many: a CTA an expert, whose warps take a part of the choices each.
// Rounds: weights once, from double.   Bound: latency.   Ref: ops/routing.cpp
#include "backend/cuda/experts/expert_kernels.h"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kFewChoices = 512;  // in one CTA
constexpr int kCtaWarps = 32;     // where a CTA sorts
constexpr int kChooseWarps = 8;

__device__ int warp_index() { return static_cast<int>(threadIdx.x) / 32; }
__device__ int lane_index() { return static_cast<int>(threadIdx.x) % 32; }

// Larger is better: the score, NaN below all numbers, then the lower expert. Never 0.
__device__ uint64_t preference(float score, int expert) {
  const uint32_t bits = __float_as_uint(score + 0.0f);  // one zero
  uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  if (score != score) ordered = 0;
  return static_cast<uint64_t>(ordered) << 32 | (0xffffffffu - static_cast<uint32_t>(expert));
}

// One warp: the experts of token t, each the best of those behind the one before, and the softmax
// over their scores.
__device__ void choose(const RouteParams& p, int t) {
  const RoutingView& r = p.routing;
  const float* scores = p.scores + static_cast<int64_t>(t) * r.experts;
  int32_t* chosen = r.chosen + static_cast<int64_t>(t) * r.active;
  uint64_t before = UINT64_MAX;
  for (int i = 0; i < r.active; ++i) {
    uint64_t best = 0;
    for (int e = lane_index(); e < r.experts; e += 32) {
      const uint64_t mine = preference(scores[e], e);
      if (mine < before && mine > best) best = mine;
    }
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      const uint64_t other = __shfl_xor_sync(0xffffffffu, best, lanes);
      if (other > best) best = other;
    }
    before = best;
    if (lane_index() == 0)
      chosen[i] = static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(best));
  }
  __syncwarp();
  const double largest = scores[chosen[0]];
  double sum = 0;
  for (int i = 0; i < r.active; ++i) sum += exp(scores[chosen[i]] - largest);
  for (int i = lane_index(); i < r.active; i += 32) {
    r.weights[static_cast<int64_t>(t) * r.active + i] =
        static_cast<float>(exp(scores[chosen[i]] - largest) / sum);
  }
}

// Choices of lower experts, and of this one.
struct Counts {
  int below = 0, own = 0;
};

// One warp: among choices [begin, end).
__device__ Counts count_choices(const RoutingView& r, int begin, int end, int expert) {
  Counts counts;
  for (int i = begin + lane_index(); i < end; i += 32) {
    const int32_t e = r.chosen[i];
    counts.below += e < expert ? 1 : 0;
    counts.own += e == expert ? 1 : 0;
  }
  counts.below = __reduce_add_sync(0xffffffffu, counts.below);
  counts.own = __reduce_add_sync(0xffffffffu, counts.own);
  return counts;
}

// One warp: gives the expert's choices among [begin, end) rows from `row` on.
__device__ void number_rows(const RoutingView& r, int begin, int end, int expert, int row) {
  for (int first = begin; first < end; first += 32) {
    const int i = first + lane_index();
    const bool own = i < end && r.chosen[i] == expert;
    const uint32_t all = __ballot_sync(0xffffffffu, own);
    if (own) {
      const int mine = row + __popc(all & ((1u << lane_index()) - 1));
      r.rows[i] = mine;
      r.tokens[mine] = i / r.active;
    }
    row += __popc(all);
  }
}

__global__ __launch_bounds__(kCtaWarps *
                             32) void route_few_kernel(const __grid_constant__ RouteParams p) {
  wait_for_previous();
  let_next_start();
  const RoutingView& r = p.routing;
  for (int t = warp_index(); t < p.tokens; t += kCtaWarps) choose(p, t);
  __syncthreads();
  const int choices = p.tokens * r.active;
  for (int e = warp_index(); e < r.experts; e += kCtaWarps) {
    const Counts counts = count_choices(r, 0, choices, e);
    number_rows(r, 0, choices, e, counts.below);
    if (lane_index() == 0) r.offsets[e] = counts.below;
  }
  if (threadIdx.x == 0) r.offsets[r.experts] = choices;
}

__global__ __launch_bounds__(kChooseWarps *
                             32) void choose_kernel(const __grid_constant__ RouteParams p) {
  wait_for_previous();
  let_next_start();
  const int t = static_cast<int>(blockIdx.x) * kChooseWarps + warp_index();
  if (t < p.tokens) choose(p, t);
}

__global__ __launch_bounds__(kCtaWarps *
                             32) void sort_kernel(const __grid_constant__ RouteParams p) {
  wait_for_previous();
  let_next_start();
  __shared__ Counts parts[kCtaWarps];
  const RoutingView& r = p.routing;
  const int e = static_cast<int>(blockIdx.x), w = warp_index();
  const int64_t choices = static_cast<int64_t>(p.tokens) * r.active;
  const auto begin = static_cast<int>(choices * w / kCtaWarps);
  const auto end = static_cast<int>(choices * (w + 1) / kCtaWarps);
  const Counts mine = count_choices(r, begin, end, e);
  if (lane_index() == 0) parts[w] = mine;
  __syncthreads();
  int offset = 0, row = 0;
  for (int i = 0; i < kCtaWarps; ++i) {
    offset += parts[i].below;
    if (i < w) row += parts[i].own;
  }
  number_rows(r, begin, end, e, offset + row);
  if (threadIdx.x != 0) return;
  r.offsets[e] = offset;
  if (e == r.experts - 1) r.offsets[r.experts] = static_cast<int32_t>(choices);
}

}  // namespace

void launch_route(const RouteParams& params, cudaStream_t stream) {
  const RoutingView& r = params.routing;
  if (params.tokens * r.active <= kFewChoices) {
    return launch_chained(route_few_kernel, dim3(1), kCtaWarps * 32, 0, params, stream);
  }
  launch_chained(choose_kernel, dim3(blocks_for(params.tokens, kChooseWarps)), kChooseWarps * 32, 0,
                 params, stream);
  launch_chained(sort_kernel, dim3(static_cast<unsigned>(r.experts)), kCtaWarps * 32, 0, params,
                 stream);
}

}  // namespace atom::cuda
