// decode_attention_sm90a: one new token a sequence over the paged INT4 (or F16) cache.
//   q     [B, H, DH] f16    out  [B, H, DH] f16 or f32
//   cache records of 16 tokens of one KV head (page_format.h), one a page
// Work: a CTA takes one KV head of one sequence, or one of `splits` parts of it. Its four warps
// take every fourth page; each feeds its own ring of records by bulk copies and runs alone to the
// end:
//
//   S [16 tokens, 8 heads] = K q    mma f16, codes as f16 subnormals, exact
//   s = (S * k_scale + k_min * sum(q)) * softmax scale        once a token and head
//   p = exp2(s - m) * v_scale       weights in f16; m bounds s + log2(v_scale), so p <= 2^8
//   O [DH, 8 heads] += V^T p        and sum(exp2(s - m) * v_min) beside it, one number a head
//
// Scales and minima never touch an element of the cache: nibbles are masked out and multiplied as
// they are. Query heads of a KV head are the columns, so that grouped heads read the cache once.
// The running maximum moves only when it is passed by 2^8, which spares its exchange between lanes.
// Warps, then splits, are merged in fixed order.   Bound: HBM.   Requires: H / KH <= 8.
#pragma once

#include "backend/cuda/attention/decode_kernels.h"
#include "backend/cuda/attention/page_reader.cuh"
#include "backend/cuda/ptx/mma.cuh"
#include "backend/cuda/ptx/sync.cuh"

namespace atom::cuda::decode {

inline constexpr float kLowest = -1e30f;
inline constexpr float kSlack = 8.0f;  // log2 of how far a weight may pass 1 before a rescale

// Stages of a warp's ring: about 45 KB in flight a CTA.
template <class Reader>
constexpr int kStages = Reader::kBytes > 4096   ? 2
                        : Reader::kBytes > 1500 ? 5
                                                : 8;

template <class Reader>
constexpr int kRingBytes = kWarps* kStages<Reader>* Reader::kBytes;

template <class Reader, int kHeadDim>
constexpr int shared_bytes() {
  const int merge = kWarps * kGroup * (kHeadDim + 2) * 4;
  const int ring = kRingBytes<Reader> + kWarps * kStages<Reader> * 8;
  return ring > merge ? ring : merge;
}

// The pages of one warp: fetched ahead through a ring, handed out in order.
template <class Reader>
class PageStream {
 public:
  __device__ PageStream(const Params& p, uint8_t* memory, int sequence, int kv_head, int first,
                        int end, int warp, int lane)
      : table_(p.pages + static_cast<int64_t>(sequence) * p.max_pages + first + warp),
        base_(p.cache + static_cast<int64_t>(kv_head) * Reader::kBytes),
        stride_(p.page_stride),
        count_(max(0, (end - first - warp + kWarps - 1) / kWarps)),
        lane_(lane),
        ring_(memory + warp * kStages<Reader> * Reader::kBytes),
        barriers_(ptx::shared_address(memory + kRingBytes<Reader>) + warp * kStages<Reader> * 8) {
    if (lane == 0) {
      for (int s = 0; s < kStages<Reader>; ++s) ptx::barrier_init(barriers_ + 8 * s, 1);
      ptx::barrier_init_fence();
    }
    __syncwarp();
    for (int s = 0; s < kStages<Reader>; ++s) fetch();
  }
  __device__ int count() const { return count_; }
  // The record of the next page, once it has arrived.
  __device__ const uint8_t* take() {
    ptx::barrier_wait(barriers_ + 8 * stage_, phase_);
    return ring_ + stage_ * Reader::kBytes;
  }
  // The record taken last has been read by all lanes: its place is used again.
  __device__ void give() {
    __syncwarp();
    fetch();
    if (++stage_ == kStages<Reader>) {
      stage_ = 0;
      phase_ ^= 1;
    }
  }

 private:
  __device__ void fetch() {
    if (fetched_ >= count_) return;
    if (fetched_ % 32 == 0) {
      ids_ = fetched_ + lane_ < count_ ? table_[(fetched_ + lane_) * kWarps] : 0;
    }
    const int64_t page = __shfl_sync(0xffffffffu, ids_, fetched_ % 32);
    if (lane_ == 0) {
      const int slot = fetched_ % kStages<Reader>;
      ptx::barrier_expect(barriers_ + 8 * slot, Reader::kBytes);
      ptx::bulk_copy(ptx::shared_address(ring_ + slot * Reader::kBytes), base_ + page * stride_,
                     Reader::kBytes, barriers_ + 8 * slot);
    }
    ++fetched_;
  }

  const int32_t* table_;
  const uint8_t* base_;
  int64_t stride_;
  int count_, lane_;
  uint8_t* ring_;
  uint32_t barriers_;
  int fetched_ = 0, stage_ = 0, ids_ = 0;
  uint32_t phase_ = 0;
};

// The query heads of one KV head as B fragments: lane (g, c) holds head g's channels of part c.
template <class Reader, int kHeadDim>
struct Queries {
  uint32_t b[kHeadDim / 16][2];
  float sum[2];  // over the channels of heads 2c and 2c + 1

  __device__ void load(const __half* q, int group, int lane) {
    const int head = lane / 4, c = lane % 4;
    float total = 0;
#pragma unroll
    for (int s = 0; s < kHeadDim / 16; ++s) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float2 pair = make_float2(0, 0);
        if (head < group) {
          pair = __half22float2(*reinterpret_cast<const __half2*>(
              q + head * kHeadDim + c * (kHeadDim / 4) + 4 * s + 2 * h));
        }
        total += pair.x + pair.y;
        const __half2 scaled =
            __floats2half2_rn(pair.x * Reader::query(h), pair.y * Reader::query(h));
        b[s][h] = *reinterpret_cast<const uint32_t*>(&scaled);
      }
    }
    total += __shfl_xor_sync(0xffffffffu, total, 1);
    total += __shfl_xor_sync(0xffffffffu, total, 2);
    sum[0] = __shfl_sync(0xffffffffu, total, 8 * c);
    sum[1] = __shfl_sync(0xffffffffu, total, 8 * c + 4);
  }
};

// Running softmax and output of a warp. Lane (g, c): heads 2c and 2c + 1; channels g, g + 8 of
// tiles.
template <class Reader, int kHeadDim>
struct State {
  static constexpr int kTiles = kHeadDim / 16;
  float o[kTiles][4];
  float m[2];
  float weight[2];   // this lane's tokens' part of the denominator
  float minimum[2];  // and of sum(weight * v_min)

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      m[i] = kLowest;
      weight[i] = minimum[i] = 0;
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) o[tile][i] = 0;
    }
  }

  // s: scores (log2) of tokens g (0, 1) and g + 8 (2, 3) for the two heads; v: their {scale, min}.
  __device__ __forceinline__ void add(const float (&s)[4], const float2 (&v)[2],
                                      const Reader& reader) {
    float level[2] = {};
    if constexpr (Reader::kScaled) {
      level[0] = __log2f(fmaxf(v[0].x, 0x1p-24f));
      level[1] = __log2f(fmaxf(v[1].x, 0x1p-24f));
    }
    const float top[2] = {fmaxf(s[0] + level[0], s[2] + level[1]),
                          fmaxf(s[1] + level[0], s[3] + level[1])};
    const bool passed = top[0] > m[0] + kSlack || top[1] > m[1] + kSlack;
    if (__any_sync(0xffffffffu, passed)) raise(top);
    float e[4], w[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      e[i] = exp2f(s[i] - m[i % 2]);
      weight[i % 2] += e[i];
      w[i] = e[i];
      if constexpr (Reader::kScaled) {
        minimum[i % 2] = fmaf(e[i], v[i / 2].y, minimum[i % 2]);
        w[i] *= v[i / 2].x;
      }
    }
    const __half2 low = __floats2half2_rn(w[0], w[1]), high = __floats2half2_rn(w[2], w[3]);
    const uint32_t b0 = ptx::transpose(*reinterpret_cast<const uint32_t*>(&low));
    const uint32_t b1 = ptx::transpose(*reinterpret_cast<const uint32_t*>(&high));
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      uint32_t a[4];
      reader.value_fragment(tile, a);
      ptx::mma_f16(o[tile], a[0], a[1], a[2], a[3], b0, b1);
    }
  }

 private:
  __device__ __forceinline__ void raise(const float (&top)[2]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float high = top[i];
#pragma unroll
      for (int lanes = 4; lanes < 32; lanes *= 2) {
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, lanes));
      }
      high = fmaxf(high, m[i]);
      const float factor = exp2f(m[i] - high);
      m[i] = high;
      weight[i] *= factor;
      minimum[i] *= factor;
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        o[tile][i] *= factor;
        o[tile][i + 2] *= factor;
      }
    }
  }
};

// The merged result of one CTA: sums [group][DH], then maximum and weight of each head.
template <int kHeadDim>
struct Merged {
  float* sums;     // [group][kHeadDim] in shared memory
  float* maximum;  // [group]
  float* weight;   // [group]
};

// Brings the warps' states together; ends with a barrier.
template <class Reader, int kHeadDim>
__device__ __forceinline__ Merged<kHeadDim> merge_warps(State<Reader, kHeadDim>& state,
                                                        float* memory, int group, int warp,
                                                        int lane) {
  float* maxima = memory;                     // [warp][kGroup]
  float* weights = maxima + kWarps * kGroup;  // [warp][kGroup]
  float* sums = weights + kWarps * kGroup;    // [warp][group][kHeadDim]
  const int g = lane / 4, head = 2 * (lane % 4);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int lanes = 4; lanes < 32; lanes *= 2) {
      state.weight[i] += __shfl_xor_sync(0xffffffffu, state.weight[i], lanes);
      state.minimum[i] += __shfl_xor_sync(0xffffffffu, state.minimum[i], lanes);
    }
  }
  __syncthreads();  // the rings are no longer in use
  if (g < 2) maxima[warp * kGroup + head + g] = g == 0 ? state.m[0] : state.m[1];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float high = kLowest;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) high = fmaxf(high, maxima[w * kGroup + head + i]);
    const float factor = exp2f(state.m[i] - high);
    if (g == i) weights[warp * kGroup + head + i] = state.weight[i] * factor;
    if (head + i < group) {
      float* row = sums + (warp * group + head + i) * kHeadDim + g;
#pragma unroll
      for (int tile = 0; tile < kHeadDim / 16; ++tile) {
#pragma unroll
        for (int hi = 0; hi < 2; ++hi) {
          row[tile * 16 + hi * 8] =
              fmaf(state.o[tile][i + 2 * hi], Reader::output(hi), state.minimum[i]) * factor;
        }
      }
    }
  }
  __syncthreads();
  const int thread = warp * 32 + lane;
  for (int i = thread; i < group * kHeadDim; i += kThreads) {
    float total = sums[i];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) total += sums[w * group * kHeadDim + i];
    sums[i] = total;
  }
  if (thread < group) {
    float high = kLowest, total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      high = fmaxf(high, maxima[w * kGroup + thread]);
      total += weights[w * kGroup + thread];
    }
    maxima[thread] = high;
    weights[thread] = total;
  }
  __syncthreads();
  return {sums, maxima, weights};
}

// Merges the splits' partial results; run by the CTA that finished last.
template <int kHeadDim, class Out>
__device__ void merge_splits(const Params& p, const float* partials, Out* out, int group,
                             float* memory) {
  const int record = group * (kHeadDim + 2);
  float* factors = memory;  // [splits][group]; host code bounds their number
  for (int head = static_cast<int>(threadIdx.x) / 32; head < group; head += kWarps) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float high = kLowest, total = 0;
    for (int s = lane; s < p.splits; s += 32) {
      high = fmaxf(high, __ldcg(partials + s * record + group * kHeadDim + head));
    }
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
      high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, lanes));
    }
    for (int s = lane; s < p.splits; s += 32) {
      const float* end = partials + s * record + group * kHeadDim;
      const float factor = exp2f(__ldcg(end + head) - high);
      factors[s * group + head] = factor;
      total += factor * __ldcg(end + group + head);
    }
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
      total += __shfl_xor_sync(0xffffffffu, total, lanes);
    }
    __syncwarp();
    for (int s = lane; s < p.splits; s += 32) factors[s * group + head] /= total;
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x) * 4; i < group * kHeadDim; i += kThreads * 4) {
    const int head = i / kHeadDim;
    float sum[4] = {};
#pragma unroll 8
    for (int s = 0; s < p.splits; ++s) {
      // 8-byte aligned: a record is a multiple of two floats.
      const float2 low = __ldcg(reinterpret_cast<const float2*>(partials + s * record + i));
      const float2 high = __ldcg(reinterpret_cast<const float2*>(partials + s * record + i + 2));
      const float factor = factors[s * group + head];
      sum[0] = fmaf(low.x, factor, sum[0]);
      sum[1] = fmaf(low.y, factor, sum[1]);
      sum[2] = fmaf(high.x, factor, sum[2]);
      sum[3] = fmaf(high.y, factor, sum[3]);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) out[i + e] = static_cast<Out>(sum[e]);
  }
}

template <class Reader, int kHeadDim, class Out>
__global__ __launch_bounds__(kThreads, kCtasPerSm) void decode_attention_sm90a_kernel(
    const __grid_constant__ Params p) {
  extern __shared__ __align__(128) uint8_t memory[];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int split = static_cast<int>(blockIdx.x), kv_head = static_cast<int>(blockIdx.y);
  const int sequence = static_cast<int>(blockIdx.z);
  const int group = p.heads / p.kv_heads;
  const int length = p.lengths[sequence];
  const int pages = (length + 15) / 16;
  const int share = (pages + p.splits - 1) / p.splits;
  const int first = split * share, end = min(first + share, pages);

  PageStream<Reader> stream(p, memory, sequence, kv_head, first, end, warp, lane);
  const int64_t row = (static_cast<int64_t>(sequence) * p.heads + kv_head * group) * kHeadDim;
  Queries<Reader, kHeadDim> queries;
  queries.load(static_cast<const __half*>(p.q) + row, group, lane);
  const float sum[2] = {queries.sum[0] * p.scale_log2, queries.sum[1] * p.scale_log2};

  State<Reader, kHeadDim> state;
  state.clear();
  for (int i = 0; i < stream.count(); ++i) {
    const uint8_t* record = stream.take();
    Reader reader;
    reader.load_keys(record, lane);
    float2 k[2], v[2];
    if constexpr (Reader::kScaled) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        k[half] = scale_pair(record, Reader::Format::key_scale(lane / 4 + 8 * half));
        v[half] = scale_pair(record, Reader::Format::value_scale(lane / 4 + 8 * half));
      }
    }
    const int page = first + warp + i * kWarps;
    reader.load_values(record, lane, length - page * 16);
    float s[4] = {};
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
      uint32_t a[4];
      reader.key_fragment(step, a);
      ptx::mma_f16(s, a[0], a[1], a[2], a[3], queries.b[step][0], queries.b[step][1]);
    }
    const int token = page * 16 + lane / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const bool real = token + 8 * half < length;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float& x = s[2 * half + h];
        x *= (Reader::kScaled ? k[half].x : 1.0f) * (Reader::kScore * p.scale_log2);
        if constexpr (Reader::kScaled) x = fmaf(k[half].y, sum[h], x);
        if (!real) x = -INFINITY;
      }
      if (!real) v[half] = make_float2(0, 0);
    }
    state.add(s, v, reader);
    stream.give();
  }

  const Merged<kHeadDim> merged =
      merge_warps<Reader, kHeadDim>(state, reinterpret_cast<float*>(memory), group, warp, lane);
  Out* out = static_cast<Out*>(p.out) + row;
  const int thread = static_cast<int>(threadIdx.x);
  if (p.splits == 1) {
    for (int i = thread; i < group * kHeadDim; i += kThreads) {
      out[i] = static_cast<Out>(merged.sums[i] / merged.weight[i / kHeadDim]);
    }
    return;
  }
  const int item = sequence * p.kv_heads + kv_head;
  const int record = group * (kHeadDim + 2);
  float* all = p.partials + static_cast<int64_t>(item) * p.splits * record;
  float* mine = all + split * record;
  for (int i = thread; i < group * kHeadDim; i += kThreads) __stcg(mine + i, merged.sums[i]);
  if (thread < group) {
    __stcg(mine + group * kHeadDim + thread, merged.maximum[thread]);
    __stcg(mine + group * (kHeadDim + 1) + thread, merged.weight[thread]);
  }
  __threadfence();
  __syncthreads();
  auto* last = reinterpret_cast<uint32_t*>(memory);
  if (thread == 0) {
    *last = atomicAdd(p.counters + item, 1u) == static_cast<uint32_t>(p.splits) - 1;
    if (*last) p.counters[item] = 0;  // for the next launch
  }
  __syncthreads();
  if (*last == 0) return;
  __threadfence();
  merge_splits<kHeadDim, Out>(p, all, out, group, reinterpret_cast<float*>(memory) + 4);
}

}  // namespace atom::cuda::decode
