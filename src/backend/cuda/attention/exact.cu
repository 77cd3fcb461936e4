// exact_attention: every cache format and head size, in float throughout.
//   q, out, cache   as attention_kernels.h
// Work: a CTA takes one head of one token and walks what it sees 128 tokens at a time: a score a
// thread, then the running softmax, then a channel or two a thread. For formats and sizes without a
// tensor core kernel, and as the measure of those.   Bound: latency; not for speed.
#include "backend/cuda/attention/attention_kernels.h"
#include "backend/cuda/attention/page_access.cuh"
#include "backend/cuda/attention/softmax_state.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda::attention {
namespace {

constexpr int kMostDim = 512;
constexpr int kChannels = kMostDim / kThreads;  // a thread, at most

// One vector of the sequence: a prefix token's (token < 0) or one of a page's.
struct Vector {
  const float* floats = nullptr;
  const uint8_t* record = nullptr;
  int slot = 0;

  __device__ static Vector find(const Params& p, const int32_t* table, int kv_head, bool value,
                                int token) {
    const CacheView& cache = p.cache;
    if (token < 0) {
      const int64_t row = int64_t{token + cache.prefix_tokens} * cache.kv_heads + kv_head;
      return {(value ? cache.prefix_v : cache.prefix_k) + row * cache.layout.head_dim, nullptr, 0};
    }
    const int64_t page = table[token / kPageTokens16];
    return {nullptr, cache.records + page * cache.page_stride + kv_head * cache.record_bytes,
            token % kPageTokens16};
  }
  __device__ float2 scale(const PageLayout& layout, bool value) const {
    return record == nullptr ? make_float2(1.0f, 0.0f) : element_scale(layout, record, value, slot);
  }
  __device__ float at(const PageLayout& layout, bool value, int channel) const {
    return record == nullptr ? floats[channel]
                             : stored_element(layout, record, value, slot, channel);
  }
};

__device__ float reduce(float value, float* memory, bool maximum) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, value, lanes);
    value = maximum ? fmaxf(value, other) : value + other;
  }
  if (thread % 32 == 0) memory[thread / 32] = value;
  __syncthreads();
  value = memory[0];
  for (int w = 1; w < kWarps; ++w) {
    value = maximum ? fmaxf(value, memory[w]) : value + memory[w];
  }
  __syncthreads();
  return value;
}

__global__ __launch_bounds__(kThreads) void exact_attention_kernel(
    const __grid_constant__ Params p) {
  __shared__ float query[kMostDim], weights[kThreads], scratch[kWarps];
  const int64_t row = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y), thread = static_cast<int>(threadIdx.x);
  const int sequence = p.token_sequence[row];
  if (sequence < 0) return;
  const PageLayout layout = p.cache.layout;
  const int kv_head = head / (p.heads / p.cache.kv_heads), dim = layout.head_dim;
  const int32_t* table = p.sequences.pages + p.sequences.page_offset[sequence];
  const int last = p.sequences.past[sequence] + static_cast<int>(row - p.sequences.row[sequence]);
  const int first = window_begin(p.window, p.cache.prefix_tokens, last);
  const int64_t place = (row * p.heads + head) * dim;
  for (int d = thread; d < dim; d += kThreads) query[d] = p.q[place + d];
  __syncthreads();

  float top = -INFINITY, total = 0, sums[kChannels] = {};
  for (int begin = first; begin <= last; begin += kThreads) {
    const int count = min(kThreads, last - begin + 1);
    float score = -INFINITY;
    if (thread < count) {
      const Vector k = Vector::find(p, table, kv_head, false, begin + thread);
      const float2 scale = k.scale(layout, false);
      float dot = 0;
      for (int d = 0; d < dim; ++d) {
        dot = fmaf(query[d], fmaf(k.at(layout, false, d), scale.x, scale.y), dot);
      }
      score = dot * p.scale;
    }
    const float high = fmaxf(top, reduce(score, scratch, true));
    const float factor = expf(top - high);
    const float weight = expf(score - high);
    total = total * factor + reduce(weight, scratch, false);
    weights[thread] = weight;
    top = high;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kChannels; ++i) {
      const int d = i * kThreads + thread;
      if (d >= dim) break;
      float sum = sums[i] * factor;
      for (int t = 0; t < count; ++t) {
        const Vector v = Vector::find(p, table, kv_head, true, begin + t);
        const float2 scale = v.scale(layout, true);
        sum = fmaf(weights[t], fmaf(v.at(layout, true, d), scale.x, scale.y), sum);
      }
      sums[i] = sum;
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kChannels; ++i) {
    const int d = i * kThreads + thread;
    if (d < dim) p.out[place + d] = sums[i] / total;
  }
}

}  // namespace

void launch_exact(const Params& params, cudaStream_t stream) {
  ATOM_CHECK(params.cache.layout.head_dim <= kMostDim, "exact attention: head size");
  if (params.item_count == 0) return;
  launch(exact_attention_kernel,
         dim3(static_cast<unsigned>(params.item_count), static_cast<unsigned>(params.heads)),
         kThreads, 0, params, stream);
}

}  // namespace atom::cuda::attention
