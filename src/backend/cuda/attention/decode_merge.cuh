// How the decode kernels bring partial results together: warps through shared memory, the CTAs of a
// cluster through each other's, and more splits than that through memory. Always in fixed order.
#pragma once

#include "backend/cuda/attention/decode_kernels.h"
#include "backend/cuda/attention/decode_pages.cuh"
#include "backend/cuda/attention/softmax_state.cuh"
#include "backend/cuda/ptx/cluster.cuh"
#include "backend/cuda/ptx/sync.cuh"

namespace atom::cuda::attention {

// A channel of a head over some tokens: the sum of values by weights 2^(score - maximum), and the
// weights' sum.
struct Partial {
  float sum, maximum, weight;

  __device__ float output() const { return weight > 0 ? sum / weight : 0.0f; }  // padding: 0
};

// Brings the warps' states together, in merged_bytes() of memory, and calls take(head, channel,
// partial) for the group's heads.
template <int kCtaWarps, class Reader, int kHeadDim, class Take>
__device__ __forceinline__ void merge_warps(State<Reader, kHeadDim, 1>& state, float* memory,
                                            int group, int warp, int lane, const Take& take) {
  float* maxima = memory;                        // [warp][kGroup]
  float* weights = maxima + kCtaWarps * kGroup;  // [warp][kGroup]
  float* sums = weights + kCtaWarps * kGroup;    // [warp][group][kHeadDim]
  const int g = lane / 4, head = 2 * (lane % 4);
  state.gather_weights();
  __syncthreads();  // the memory is no longer in use
  if (g < 2) {
    maxima[warp * kGroup + head + g] = g == 0 ? state.m[0][0] : state.m[0][1];
    weights[warp * kGroup + head + g] = g == 0 ? state.weight[0][0] : state.weight[0][1];
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (head + i >= group) continue;
    float* row = sums + (warp * group + head + i) * kHeadDim + g;
#pragma unroll
    for (int tile = 0; tile < kHeadDim / 16; ++tile) {
#pragma unroll
      for (int hi = 0; hi < 2; ++hi) row[tile * 16 + hi * 8] = state.output(0, tile, i, hi);
    }
  }
  __syncthreads();
  for (int i = warp * 32 + lane; i < group * kHeadDim; i += 32 * kCtaWarps) {
    const int own = i / kHeadDim;
    Partial merged = {.sum = 0, .maximum = kLowest, .weight = 0};
#pragma unroll
    for (int w = 0; w < kCtaWarps; ++w) {
      merged.maximum = fmaxf(merged.maximum, maxima[w * kGroup + own]);
    }
#pragma unroll
    for (int w = 0; w < kCtaWarps; ++w) {
      const float factor = fast_exp2(maxima[w * kGroup + own] - merged.maximum);
      merged.sum = fmaf(sums[w * group * kHeadDim + i], factor, merged.sum);
      merged.weight = fmaf(weights[w * kGroup + own], factor, merged.weight);
    }
    take(own, i % kHeadDim, merged);
  }
}

// Where the CTAs of a cluster send their partial results: inbox_bytes() of memory.
template <int kHeadDim>
class Inbox {
 public:
  __device__ Inbox(uint8_t* memory, int heads, int cluster)
      : heads_(heads),
        cluster_(cluster),
        rank_(ptx::cluster_rank()),
        slice_(slice_of(kHeadDim, heads, cluster)),
        barrier_(ptx::shared_address(memory)),
        ends_(reinterpret_cast<float2*>(memory + 16)),
        sums_(reinterpret_cast<float*>(ends_ + cluster * heads)) {}

  // Before anything is sent; whoever sends must have seen cluster_wait() return.
  __device__ void open() const {
    if (threadIdx.x == 0) {
      ptx::barrier_init(barrier_, 1);
      ptx::barrier_init_fence();
      const int own = max(min(slice_, heads_ * kHeadDim - rank_ * slice_), 0);
      ptx::barrier_expect(barrier_, static_cast<uint32_t>(cluster_ * (own * 4 + heads_ * 8)));
    }
    __syncwarp();
    ptx::cluster_arrive();
  }
  __device__ void send(int head, int channel, const Partial& partial) const {
    const int i = head * kHeadDim + channel, to = i / slice_;
    ptx::send(ptx::address_in(ptx::shared_address(sums_ + rank_ * slice_ + i - to * slice_), to),
              partial.sum, ptx::address_in(barrier_, to));
    if (channel >= cluster_) return;
    // The first threads of a head tell all of them, one each, of its maximum and weight.
    ptx::send(ptx::address_in(ptx::shared_address(ends_ + rank_ * heads_ + head), channel),
              make_float2(partial.maximum, partial.weight), ptx::address_in(barrier_, channel));
  }
  // Calls take(head, channel, partial) for this CTA's slice.
  template <class Take>
  __device__ void merge(const Take& take) const {
    ptx::barrier_wait_cluster(barrier_, 0);
    for (int j = static_cast<int>(threadIdx.x); j < slice_; j += static_cast<int>(blockDim.x)) {
      const int i = rank_ * slice_ + j, head = i / kHeadDim;
      if (i >= heads_ * kHeadDim) break;
      Partial merged = {.sum = 0, .maximum = kLowest, .weight = 0};
      for (int r = 0; r < cluster_; ++r) {
        merged.maximum = fmaxf(merged.maximum, ends_[r * heads_ + head].x);
      }
      for (int r = 0; r < cluster_; ++r) {
        const float2 end = ends_[r * heads_ + head];
        const float factor = fast_exp2(end.x - merged.maximum);
        merged.sum = fmaf(sums_[r * slice_ + j], factor, merged.sum);
        merged.weight = fmaf(end.y, factor, merged.weight);
      }
      take(head, i % kHeadDim, merged);
    }
  }

 private:
  int heads_, cluster_, rank_, slice_;
  uint32_t barrier_;
  float2* ends_;  // [rank][head] {maximum, weight}
  float* sums_;   // [rank][slice]
};

__device__ inline float4 add_scaled(float4 sum, float4 x, float factor) {
  return make_float4(fmaf(x.x, factor, sum.x), fmaf(x.y, factor, sum.y), fmaf(x.z, factor, sum.z),
                     fmaf(x.w, factor, sum.w));
}

// A partial result in memory.
template <int kHeadDim>
__device__ void store_partial(float* record, int heads, int head, int channel,
                              const Partial& partial) {
  __stcg(record + head * kHeadDim + channel, partial.sum);
  if (channel == 0) {
    __stcg(record + heads * kHeadDim + head, partial.maximum);
    __stcg(record + heads * (kHeadDim + 1) + head, partial.weight);
  }
}

// Factors [split][head] that bring `count` partial results together: of each, 2^(maximum - highest)
// over the sum of all weights.
template <int kCtaWarps, int kHeadDim>
__device__ void partial_factors(const float* partials, int count, int heads, float* factors) {
  constexpr int kTurns = kMostSplits / 32;
  const int record = partial_floats(heads, kHeadDim), lane = static_cast<int>(threadIdx.x) % 32;
  for (int head = static_cast<int>(threadIdx.x) / 32; head < heads; head += kCtaWarps) {
    float maximum[kTurns], weight[kTurns];
#pragma unroll
    for (int i = 0; i < kTurns; ++i) {
      const float* end = partials + (lane + 32 * i) * record + heads * kHeadDim + head;
      const bool real = lane + 32 * i < count;
      maximum[i] = real ? __ldcg(end) : kLowest;
      weight[i] = real ? __ldcg(end + heads) : 0.0f;
    }
    float high = maximum[0], total = 0;
#pragma unroll
    for (int i = 1; i < kTurns; ++i) high = fmaxf(high, maximum[i]);
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
      high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, lanes));
    }
#pragma unroll
    for (int i = 0; i < kTurns; ++i) {
      maximum[i] = fast_exp2(maximum[i] - high);
      total = fmaf(maximum[i], weight[i], total);
    }
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
      total += __shfl_xor_sync(0xffffffffu, total, lanes);
    }
    const float inverse = total > 0 ? 1.0f / total : 0.0f;
#pragma unroll
    for (int i = 0; i < kTurns; ++i) {
      if (lane + 32 * i < count) factors[(lane + 32 * i) * heads + head] = maximum[i] * inverse;
    }
  }
}

// Merges `count` partial results of `heads` query heads; run by the CTA that finished last. memory:
// partials_scratch_bytes(). A thread adds four channels, of all results or, where there are threads
// to spare, of every parts-th. What it adds first is on its way while the factors are made.
template <int kCtaWarps, int kHeadDim>
__device__ void merge_partials(const float* partials, int count, int heads, float* out,
                               float* memory) {
  constexpr int kCtaThreads = 32 * kCtaWarps, kRound = 8;
  const int record = partial_floats(heads, kHeadDim), quads = heads * kHeadDim / 4;
  const int parts = max(1, kCtaThreads / quads), thread = static_cast<int>(threadIdx.x);
  const int part = thread / quads;  // of threads beyond the last part: nothing to do
  const float* factors = memory;
  auto* sums = reinterpret_cast<float4*>(memory + (count * heads + 3) / 4 * 4);
  float4 round[kRound];
  const auto load = [&](int quad, int first) {
#pragma unroll
    for (int i = 0; i < kRound; ++i) {
      const int s = first + i * parts;
      if (s < count) {
        round[i] = __ldcg(reinterpret_cast<const float4*>(partials + s * record) + quad);
      }
    }
  };
  int quad = part < parts ? thread - part * quads : quads;
  if (quad < quads) load(quad, part);
  partial_factors<kCtaWarps, kHeadDim>(partials, count, heads, memory);
  __syncthreads();
  for (; quad < quads; quad += kCtaThreads) {
    const float* factor = factors + quad / (kHeadDim / 4);
    float4 sum = make_float4(0, 0, 0, 0);
    for (int first = part; first < count; first += kRound * parts) {
#pragma unroll
      for (int i = 0; i < kRound; ++i) {
        const int s = first + i * parts;
        if (s < count) sum = add_scaled(sum, round[i], factor[s * heads]);
      }
      if (first + kRound * parts < count) load(quad, first + kRound * parts);
    }
    if (quad + kCtaThreads < quads) load(quad + kCtaThreads, part);
    if (parts == 1) {
      reinterpret_cast<float4*>(out)[quad] = sum;
    } else {
      sums[thread] = sum;
    }
  }
  if (parts == 1) return;
  __syncthreads();
  if (thread >= quads) return;
  float4 sum = sums[thread];
  for (int i = 1; i < parts; ++i) sum = add_scaled(sum, sums[i * quads + thread], 1.0f);
  reinterpret_cast<float4*>(out)[thread] = sum;
}

// Where a CTA's merged result goes: to the output, to its cluster, or to memory for the CTA that
// ends last.
template <int kCtaWarps, int kHeadDim>
class Delivery {
 public:
  __device__ Delivery(const Params& p, const DecodePart& part, uint8_t* memory, int inbox)
      : p_(p), part_(part), memory_(memory), inbox_at_(inbox), group_(p.group) {}

  // Before anything that may take long.
  __device__ void open() const {
    if (p_.cluster > 1) inbox().open();
  }
  // Until results can be delivered: all of the cluster have opened their inboxes.
  __device__ void wait() const {
    if (p_.cluster > 1) ptx::cluster_wait();
  }
  __device__ void operator()(int head, int channel, const Partial& merged) const {
    if (p_.cluster > 1) {
      inbox().send(head, channel, merged);
    } else {
      put(head, channel, merged);
    }
  }
  // After all results of the CTA.
  __device__ void finish() const {
    if (p_.cluster > 1) {
      inbox().merge(
          [&](int head, int channel, const Partial& merged) { put(head, channel, merged); });
    }
    if (results() == 1) return;
    __threadfence();
    __syncthreads();
    auto* last = reinterpret_cast<uint32_t*>(memory_);
    if (threadIdx.x == 0) {
      uint32_t* counter = p_.counters + pair();
      *last = atomicAdd(counter, 1u) == static_cast<uint32_t>(p_.splits) - 1;
      if (*last) *counter = 0;  // for the next launch
    }
    __syncthreads();
    if (*last == 0) return;
    __threadfence();
    merge_partials<kCtaWarps, kHeadDim>(partials(), results(), group_, out(),
                                        reinterpret_cast<float*>(memory_) + 4);
  }

 private:
  __device__ Inbox<kHeadDim> inbox() const {
    return Inbox<kHeadDim>(memory_ + inbox_at_, group_, p_.cluster);
  }
  __device__ void put(int head, int channel, const Partial& merged) const {
    if (results() == 1) {
      out()[head * kHeadDim + channel] = merged.output();
    } else {
      store_partial<kHeadDim>(
          partials() + part_.split / p_.cluster * partial_floats(group_, kHeadDim), group_, head,
          channel, merged);
    }
  }
  __device__ int results() const { return p_.splits / p_.cluster; }  // that go through memory
  __device__ int64_t pair() const {
    return static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y;
  }
  __device__ float* partials() const {
    return p_.partials + pair() * results() * partial_floats(group_, kHeadDim);
  }
  __device__ float* out() const { return p_.out + part_.row(p_, kHeadDim); }

  const Params& p_;
  const DecodePart& part_;
  uint8_t* memory_;
  int inbox_at_, group_;
};

}  // namespace atom::cuda::attention
