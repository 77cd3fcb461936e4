// What a CTA of the decode kernels works on, and how its warps' pages come.
#pragma once

#include "backend/cuda/attention/decode_kernels.h"
#include "backend/cuda/attention/softmax_state.cuh"
#include "backend/cuda/ptx/sync.cuh"

namespace atom::cuda::attention {

// A part of what a sequence's new token sees, for one KV head.
struct DecodePart {
  DecodeItem item;
  int split, kv_head;
  int begin;             // the first token that is seen
  int first, end;        // pages
  const int32_t* table;  // of the sequence's pages

  __device__ explicit DecodePart(const Params& p)
      : item(p.decode[blockIdx.z]),
        split(static_cast<int>(blockIdx.x)),
        kv_head(static_cast<int>(blockIdx.y)),
        begin(window_begin(p.window, p.cache.prefix_tokens, item.past)),
        table(p.sequences.pages + item.page_offset) {
    const int first_page = max(begin, 0) / 16, pages = newest_page() + 1 - first_page;
    const int share = (pages + p.splits - 1) / p.splits;
    first = first_page + split * share;
    end = min(first + share, first_page + pages);
  }
  __device__ int length() const { return item.past + 1; }
  __device__ int newest_page() const { return item.past / 16; }
  // Offset of the queries and outputs of the KV head's first query head.
  __device__ int64_t row(const Params& p, int head_dim) const {
    return (static_cast<int64_t>(item.row) * p.heads + kv_head * p.group) * head_dim;
  }
};

// The pages of one warp, every kCtaWarps-th of a run: fetched ahead through a ring, handed out
// in order.
template <class Reader, int kCtaWarps>
class PageStream {
 public:
  __device__ PageStream(const Params& p, const DecodePart& part, uint8_t* memory, uint32_t barriers,
                        int warp, int lane)
      : table_(part.table),
        base_(p.cache.records + static_cast<int64_t>(part.kv_head) * Reader::kBytes),
        stride_(static_cast<uint32_t>(p.cache.page_stride)),
        start_(part.first + warp),
        count_(max(0, pages_of(part.end - part.first, warp))),
        stages_(p.stages),
        lane_(lane),
        ring_(memory + warp * p.stages * Reader::kBytes),
        barriers_(barriers + warp * p.stages * 8) {
    load_ids();
    if (lane < stages_) ptx::barrier_init(barriers_ + 8 * lane, 1);
    ptx::barrier_init_fence();
    __syncwarp();
  }
  // Fills the ring, but with no more than the first `count` pages; all are asked for before any is
  // given back.
  __device__ void begin(int count) {
#pragma unroll 1
    while (fetched_ < min(min(count, count_), stages_)) fetch(fetched_);
  }
  // Pages of the warp among the first `pages`.
  static __device__ int pages_of(int pages, int warp) {
    return (pages - warp + kCtaWarps - 1) / kCtaWarps;
  }
  __device__ int count() const { return count_; }
  __device__ int page(int i) const { return start_ + i * kCtaWarps; }
  // The record of the next page, once it has arrived.
  __device__ const uint8_t* take() {
    ptx::barrier_wait(barriers_ + 8 * stage_, phase_);
    return ring_ + stage_ * Reader::kBytes;
  }
  // The record taken last has been read by all lanes: its place is used again.
  __device__ void give() {
    __syncwarp();
    if (fetched_ < count_) fetch(stage_);
    if (++stage_ == stages_) {
      stage_ = 0;
      phase_ ^= 1;
    }
  }

 private:
  // The next page, into this place.
  __device__ void fetch(int place) {
    const auto page = static_cast<uint32_t>(__shfl_sync(0xffffffffu, ids_, fetched_ % 32));
    if (ptx::elect_one()) {
      ptx::barrier_expect(barriers_ + 8 * place, Reader::kBytes);
      ptx::bulk_copy_once(ptx::shared_address(ring_ + place * Reader::kBytes),
                          base_ + uint64_t{stride_} * page, Reader::kBytes, barriers_ + 8 * place);
    }
    if (++fetched_ % 32 == 0) load_ids();
  }
  // Of the next 32 pages.
  __device__ void load_ids() {
    ids_ = fetched_ + lane_ < count_ ? table_[page(fetched_ + lane_)] : 0;
  }

  const int32_t* table_;
  const uint8_t* base_;
  uint32_t stride_;
  int start_, count_, stages_, lane_;
  uint8_t* ring_;
  uint32_t barriers_;
  int fetched_ = 0, ids_ = 0;
  int stage_ = 0;  // of the next page taken
  uint32_t phase_ = 0;
};

// The prefix's tokens, where the part has them.
template <class Reader, int kHeadDim, class Query>
__device__ __forceinline__ void attend_prefix(const Params& p, const DecodePart& part,
                                              const Query& query, float scale_log2,
                                              State<Reader, kHeadDim, 1>& state, int lane) {
  for (int t = 0; t < p.cache.prefix_tokens; ++t) {
    const int64_t at = (static_cast<int64_t>(t) * p.cache.kv_heads + part.kv_head) * kHeadDim;
    const bool in_window = t - p.cache.prefix_tokens >= part.begin;
    const bool seen[1][2] = {{in_window, in_window}};
    state.add_token(p.cache.prefix_k + at, p.cache.prefix_v + at, seen, query, scale_log2, lane);
  }
}

}  // namespace atom::cuda::attention
