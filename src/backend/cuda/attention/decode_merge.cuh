// How the decode kernels bring partial results together: warps through shared memory, the CTAs of a
// cluster through each other's, and more splits than that through memory. Always in fixed order.
#pragma once

#include "backend/cuda/attention/attention_kernels.h"
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

// Shared memory of merge_warps.
constexpr int merged_bytes(int group, int head_dim) {
  return kWarps * (2 * kGroup + group * head_dim) * 4;
}

// Brings the warps' states together and calls take(head, channel, partial) for the group's heads.
template <class Reader, int kHeadDim, class Take>
__device__ __forceinline__ void merge_warps(State<Reader, kHeadDim, 1>& state, float* memory,
                                            int group, int warp, int lane, const Take& take) {
  float* maxima = memory;                     // [warp][kGroup]
  float* weights = maxima + kWarps * kGroup;  // [warp][kGroup]
  float* sums = weights + kWarps * kGroup;    // [warp][group][kHeadDim]
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
  for (int i = warp * 32 + lane; i < group * kHeadDim; i += kThreads) {
    const int own = i / kHeadDim;
    Partial merged = {.sum = 0, .maximum = kLowest, .weight = 0};
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      merged.maximum = fmaxf(merged.maximum, maxima[w * kGroup + own]);
    }
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float factor = fast_exp2(maxima[w * kGroup + own] - merged.maximum);
      merged.sum = fmaf(sums[w * group * kHeadDim + i], factor, merged.sum);
      merged.weight = fmaf(weights[w * kGroup + own], factor, merged.weight);
    }
    take(own, i % kHeadDim, merged);
  }
}

// An inbox holds a barrier, then [rank][head] ends, then [rank][slice] sums: each CTA of a cluster
// finishes a slice of the sums.
constexpr int slice_of(int head_dim, int heads, int cluster) {
  return (heads * head_dim + cluster - 1) / cluster;
}
constexpr int inbox_bytes(int head_dim, int heads, int cluster) {
  return cluster == 1 ? 0 : 16 + cluster * (heads * 8 + slice_of(head_dim, heads, cluster) * 4);
}

// Where the CTAs of a cluster send their partial results.
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
    for (int j = static_cast<int>(threadIdx.x); j < slice_; j += kThreads) {
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

// Merges `count` partial results of `heads` query heads; run by the CTA that finished last. memory:
// [count][heads] floats.
template <int kHeadDim>
__device__ void merge_partials(const float* partials, int count, int heads, float* out,
                               float* memory) {
  const int record = partial_floats(heads, kHeadDim);
  for (int head = static_cast<int>(threadIdx.x) / 32; head < heads; head += kWarps) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float high = kLowest, total = 0;
    for (int s = lane; s < count; s += 32) {
      high = fmaxf(high, __ldcg(partials + s * record + heads * kHeadDim + head));
    }
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
      high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, lanes));
    }
    for (int s = lane; s < count; s += 32) {
      const float* end = partials + s * record + heads * kHeadDim;
      const float factor = fast_exp2(__ldcg(end + head) - high);
      memory[s * heads + head] = factor;
      total += factor * __ldcg(end + heads + head);
    }
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
      total += __shfl_xor_sync(0xffffffffu, total, lanes);
    }
    __syncwarp();
    const float inverse = total > 0 ? 1.0f / total : 0.0f;
    for (int s = lane; s < count; s += 32) memory[s * heads + head] *= inverse;
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x) * 4; i < heads * kHeadDim; i += kThreads * 4) {
    const int head = i / kHeadDim;
    float sum[4] = {};
#pragma unroll 8
    for (int s = 0; s < count; ++s) {
      // 8-byte aligned: a record is a multiple of two floats.
      const float2 low = __ldcg(reinterpret_cast<const float2*>(partials + s * record + i));
      const float2 high = __ldcg(reinterpret_cast<const float2*>(partials + s * record + i + 2));
      const float factor = memory[s * heads + head];
      sum[0] = fmaf(low.x, factor, sum[0]);
      sum[1] = fmaf(low.y, factor, sum[1]);
      sum[2] = fmaf(high.x, factor, sum[2]);
      sum[3] = fmaf(high.y, factor, sum[3]);
    }
    *reinterpret_cast<float4*>(out + i) = make_float4(sum[0], sum[1], sum[2], sum[3]);
  }
}

}  // namespace atom::cuda::attention
