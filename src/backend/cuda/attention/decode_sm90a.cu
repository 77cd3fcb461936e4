// decode_attention_sm90a: one new token a sequence over the paged INT4 (or INT8, F16) cache.
//   q     [T, H, DH] f32    out  [T, H, DH] f32
//   cache records of 16 tokens of one KV head (page_format.h), one a page
// Work: a CTA takes one KV head of one sequence, or one of `splits` parts of it. Its four warps
// take every fourth page; each feeds its own ring of records by bulk copies and runs alone to the
// end (softmax_state.cuh). Query heads of a KV head are the columns, so that grouped heads read the
// cache once. The prefix, in floats, is the first warp's. Warps, then splits, are merged in fixed
// order (decode_merge.cuh). Bound: HBM; latency for few sequences.   Requires: H / KH <= 8.
#include "backend/cuda/attention/decode_merge.cuh"
#include "backend/cuda/attention/softmax_state.cuh"
#include "backend/cuda/ptx/sync.cuh"
#include "backend/cuda/runtime/cluster_launch.cuh"

namespace atom::cuda::attention {
namespace {

// Stages of a warp's ring: about 45 KB in flight a CTA.
template <class Reader>
constexpr int kStages = Reader::kBytes > 6000   ? 2
                        : Reader::kBytes > 4096 ? 3
                        : Reader::kBytes > 1500 ? 5
                                                : 8;

template <class Reader>
constexpr int kRingBytes = kWarps* kStages<Reader>* Reader::kBytes;

// The rings and their barriers; what warps merge takes their place; then the cluster's inbox.
template <class Reader, int kHeadDim>
constexpr int inbox_start() {
  const int ring = kRingBytes<Reader> + kWarps * kStages<Reader> * 8;
  return max(ring, merged_bytes(kGroup, kHeadDim));
}

// The pages of one warp: fetched ahead through a ring, handed out in order.
template <class Reader>
class PageStream {
 public:
  __device__ PageStream(const int32_t* pages, const CacheView& cache, uint8_t* memory, int kv_head,
                        int first, int end, int warp, int lane)
      : table_(pages + first + warp),
        base_(cache.records + static_cast<int64_t>(kv_head) * Reader::kBytes),
        stride_(static_cast<uint32_t>(cache.page_stride)),
        first_(first + warp),
        count_(max(0, (end - first_ + kWarps - 1) / kWarps)),
        lane_(lane),
        ring_(memory + warp * kStages<Reader> * Reader::kBytes),
        barriers_(ptx::shared_address(memory + kRingBytes<Reader>) + warp * kStages<Reader> * 8) {
    if (lane == 0) {
      for (int s = 0; s < kStages<Reader>; ++s) ptx::barrier_init(barriers_ + 8 * s, 1);
      ptx::barrier_init_fence();
    }
    __syncwarp();
  }
  // Fills the ring with the pages before page `end`.
  __device__ void begin(int end) {
    const int count = max(0, (end - first_ + kWarps - 1) / kWarps);
    while (fetched_ < min(count, kStages<Reader>)) fetch();
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
    const auto page = static_cast<uint32_t>(__shfl_sync(0xffffffffu, ids_, fetched_ % 32));
    if (lane_ == 0) {
      const int slot = fetched_ % kStages<Reader>;
      ptx::barrier_expect(barriers_ + 8 * slot, Reader::kBytes);
      ptx::bulk_copy_once(ptx::shared_address(ring_ + slot * Reader::kBytes),
                          base_ + uint64_t{stride_} * page, Reader::kBytes, barriers_ + 8 * slot);
    }
    ++fetched_;
  }

  const int32_t* table_;
  const uint8_t* base_;
  uint32_t stride_;
  int first_, count_, lane_;  // first_: the page that a count starts at
  uint8_t* ring_;
  uint32_t barriers_;
  int fetched_ = 0, stage_ = 0, ids_ = 0;
  uint32_t phase_ = 0;
};

template <class Reader, int kHeadDim>
__global__ __launch_bounds__(
    kThreads,
    kHeadDim > 128
        ? 2
        : kDecodeCtas) void decode_attention_sm90a_kernel(const __grid_constant__ Params p) {
  uint8_t* memory = dynamic_shared();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int split = static_cast<int>(blockIdx.x), kv_head = static_cast<int>(blockIdx.y);
  const int item = static_cast<int>(blockIdx.z), sequence = p.items[item];
  const int group = p.heads / p.cache.kv_heads;
  const int count = p.sequences.count[sequence];
  const int length = p.sequences.past[sequence] + count;
  const int begin = window_begin(p.window, p.cache.prefix_tokens, length - 1);
  const int first_page = max(begin, 0) / 16;
  const int pages = count == 0 ? 0 : (length + 15) / 16 - first_page;
  const int share = (pages + p.splits - 1) / p.splits;
  const int first = first_page + split * share, end = min(first + share, first_page + pages);

  PageStream<Reader> stream(p.sequences.pages + p.sequences.page_offset[sequence], p.cache, memory,
                            kv_head, first, end, warp, lane);
  const auto inbox = [&] {
    return Inbox<kHeadDim>(memory + inbox_start<Reader, kHeadDim>(), group, p.cluster);
  };
  if (p.cluster > 1) inbox().open();
  // The page of the new token is being written; those before it lie there since the last step.
  stream.begin(min(end, p.sequences.past[sequence] / 16));
  if (p.beside_chunks) {
    start_beside_previous();
  } else {
    wait_for_previous();
  }
  let_next_start();
  stream.begin(end);
  const int64_t row = static_cast<int64_t>(p.sequences.row[sequence]) * p.heads * kHeadDim;
  const float* q = p.q + row + kv_head * group * kHeadDim;
  const float scale_log2 = p.scale * kLog2E;
  const auto query = [&](int column) { return column < group ? q + column * kHeadDim : nullptr; };
  Queries<Reader, kHeadDim, 1> queries;
  queries.load(query, scale_log2, lane);

  State<Reader, kHeadDim, 1> state;
  state.clear();
  if (split == 0 && warp == 0 && count > 0) {
    for (int t = 0; t < p.cache.prefix_tokens; ++t) {
      const int64_t at = (static_cast<int64_t>(t) * p.cache.kv_heads + kv_head) * kHeadDim;
      const bool in_window = t - p.cache.prefix_tokens >= begin;
      const bool seen[1][2] = {{in_window, in_window}};
      state.add_token(p.cache.prefix_k + at, p.cache.prefix_v + at, seen, query, scale_log2, lane);
    }
  }
  const Visible<1> visible = {.begin = {{begin, begin}}, .end = {{length, length}}};
  for (int i = 0; i < stream.count(); ++i) {
    const uint8_t* record = stream.take();
    const int token = (first + warp + i * kWarps) * 16;
    attend_page(record, token, length, token >= begin && token + 16 <= length, queries, visible,
                scale_log2, state, lane);
    stream.give();
  }

  float* out = p.out + row + kv_head * group * kHeadDim;
  const int64_t pair = static_cast<int64_t>(item) * gridDim.y + blockIdx.y;
  const int results = p.splits / p.cluster;  // that are merged through memory
  float* all = p.partials + pair * results * partial_floats(group, kHeadDim);
  const auto finish = [&](int head, int channel, const Partial& merged) {
    if (results == 1) {
      out[head * kHeadDim + channel] = merged.output();
    } else {
      store_partial<kHeadDim>(all + split / p.cluster * partial_floats(group, kHeadDim), group,
                              head, channel, merged);
    }
  };
  if (p.cluster > 1) {
    ptx::cluster_wait();  // all have opened their inboxes
    merge_warps(
        state, reinterpret_cast<float*>(memory), group, warp, lane,
        [&](int head, int channel, const Partial& merged) { inbox().send(head, channel, merged); });
    inbox().merge(finish);
  } else {
    merge_warps(state, reinterpret_cast<float*>(memory), group, warp, lane, finish);
  }
  // Whoever waits for this kernel waits for the chunks' as well.
  if (p.beside_chunks && is_last_block()) wait_for_previous();
  if (results == 1) return;
  __threadfence();
  __syncthreads();
  auto* last = reinterpret_cast<uint32_t*>(memory);
  if (threadIdx.x == 0) {
    *last = atomicAdd(p.counters + pair, 1u) == static_cast<uint32_t>(p.splits) - 1;
    if (*last) p.counters[pair] = 0;  // for the next launch
  }
  __syncthreads();
  if (*last == 0) return;
  __threadfence();
  merge_partials<kHeadDim>(all, results, group, out, reinterpret_cast<float*>(memory) + 4);
}

template <class Reader, int kHeadDim>
void start(const Params& p, cudaStream_t stream) {
  const int bytes = inbox_start<Reader, kHeadDim>() +
                    inbox_bytes(kHeadDim, p.heads / p.cache.kv_heads, p.cluster);
  launch_clusters(decode_attention_sm90a_kernel<Reader, kHeadDim>,
                  dim3(static_cast<unsigned>(p.splits), static_cast<unsigned>(p.cache.kv_heads),
                       static_cast<unsigned>(p.item_count)),
                  kThreads, bytes, p.cluster, p, stream);
}

template <int kHeadDim>
Launcher pick(const PageLayout& layout) {
  if (layout.bits == 4) return start<Int4Reader<kHeadDim>, kHeadDim>;
  if (layout.bits == 8) return start<Int8Reader<kHeadDim>, kHeadDim>;
  return start<HalfReader<kHeadDim>, kHeadDim>;
}

}  // namespace

Launcher find_decode(const PageLayout& layout) {
  if (!layout.fragments) return nullptr;
  if (layout.head_dim == 64) return pick<64>(layout);
  if (layout.head_dim == 96) return pick<96>(layout);
  if (layout.head_dim == 128) return pick<128>(layout);
  return layout.head_dim == 256 ? pick<256>(layout) : nullptr;
}

}  // namespace atom::cuda::attention
