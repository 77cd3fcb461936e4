// chunk_attention_sm90a: several new tokens a sequence (prompts and their chunks) over the paged
// INT4 (or INT8, F16) cache, which holds the new tokens as well.
//   q, out, cache   as decode_sm90a.cu
// Work: a CTA takes a tile of query columns of one KV head of one sequence, column r = (new token
// r / group, head r % group); a warp 16 of them (8 where heads are large). All warps read the same
// pages, which a ring of bulk copies brings to shared memory, the last tile's, which has most to
// do, first:
//
//   ring     | page i | page i + 1 | ...    full: the copy's bytes;  empty: an arrival a warp
//   warp     waits for full, adds the page to its columns (softmax_state.cuh), arrives at empty
//
// Bound: issue slots (unpacking and softmax beside the tensor cores).
#include "backend/cuda/attention/softmax_state.cuh"
#include "backend/cuda/ptx/sync.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda::attention {
namespace {

constexpr int kStages = 4;

template <class Reader>
constexpr int shared_bytes() {
  return kStages * (Reader::kBytes + 16);
}

// The tile that a CTA has: which item, and its first column.
struct Tile {
  int sequence = -1, column = 0;
};

__device__ Tile find_tile(const Params& p, int columns, int index) {
  const int group = p.heads / p.cache.kv_heads;
  for (int i = 0; i < p.item_count; ++i) {
    const int sequence = p.items[i];
    const int tiles = (p.sequences.count[sequence] * group + columns - 1) / columns;
    if (index < tiles) return {sequence, (tiles - 1 - index) * columns};
    index -= tiles;
  }
  return {};
}

template <class Reader, int kHeadDim>
__global__ __launch_bounds__(kThreads) void chunk_attention_sm90a_kernel(
    const __grid_constant__ Params p) {
  constexpr int kColumns = chunk_columns(kHeadDim), kTilesN = kColumns / kWarps / 8;
  uint8_t* ring = dynamic_shared();
  const uint32_t full = ptx::shared_address(ring + kStages * Reader::kBytes);
  const uint32_t empty = full + 8 * kStages;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int kv_head = static_cast<int>(blockIdx.y);
  const Tile tile = find_tile(p, kColumns, static_cast<int>(blockIdx.x));
  if (tile.sequence < 0) return;
  const int group = p.heads / p.cache.kv_heads;
  const int past = p.sequences.past[tile.sequence], count = p.sequences.count[tile.sequence];
  const int length = past + count, prefix = p.cache.prefix_tokens;
  const int64_t row0 = p.sequences.row[tile.sequence];

  // The row of q and out of a column of this warp; null behind the last.
  const int column0 = tile.column + warp * (kColumns / kWarps);
  const auto place = [&](int column) {
    const int r = column0 + column, token = r / group;
    return token < count
               ? ((row0 + token) * p.heads + kv_head * group + r % group) * int64_t{kHeadDim}
               : int64_t{-1};
  };
  const auto query = [&](int column) {
    const int64_t at = place(column);
    return at < 0 ? nullptr : p.q + at;
  };
  const float scale_log2 = p.scale * kLog2E;
  Queries<Reader, kHeadDim, kTilesN> queries;
  queries.load(query, scale_log2, lane);
  Visible<kTilesN> visible;
#pragma unroll
  for (int n = 0; n < kTilesN; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = past + min((column0 + 8 * n + 2 * (lane % 4) + i) / group, count - 1);
      visible.end[n][i] = token + 1;
      visible.begin[n][i] = window_begin(p.window, prefix, token);
    }
  }
  State<Reader, kHeadDim, kTilesN> state;
  state.clear();
  for (int t = 0; t < prefix; ++t) {
    const int64_t at = (static_cast<int64_t>(t) * p.cache.kv_heads + kv_head) * kHeadDim;
    bool seen[kTilesN][2];
#pragma unroll
    for (int n = 0; n < kTilesN; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) seen[n][i] = t - prefix >= visible.begin[n][i];
    }
    state.add_token(p.cache.prefix_k + at, p.cache.prefix_v + at, seen, query, scale_log2, lane);
  }

  // Pages that any column of the CTA, or of this warp, has to see.
  const auto last_of = [&](int columns_end) {
    return past + min((columns_end - 1) / group, count - 1);
  };
  const int first_page = max(0, window_begin(p.window, prefix, past + tile.column / group)) / 16;
  const int pages = last_of(tile.column + kColumns) / 16 + 1 - first_page;
  const int own_end = last_of(column0 + kColumns / kWarps) / 16 + 1;
  const int32_t* table = p.sequences.pages + p.sequences.page_offset[tile.sequence] + first_page;
  const uint8_t* base = p.cache.records + static_cast<int64_t>(kv_head) * Reader::kBytes;
  if (thread == 0) {
    for (int s = 0; s < kStages; ++s) {
      ptx::barrier_init(full + 8 * s, 1);
      ptx::barrier_init(empty + 8 * s, kWarps);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();
  const auto fetch = [&](int i) {
    const int stage = i % kStages;
    ptx::barrier_expect(full + 8 * stage, Reader::kBytes);
    ptx::bulk_copy(ptx::shared_address(ring + stage * Reader::kBytes),
                   base + table[i] * p.cache.page_stride, Reader::kBytes, full + 8 * stage);
  };
  if (thread == 0) {
    for (int i = 0; i < min(kStages - 1, pages); ++i) fetch(i);
  }
  for (int i = 0; i < pages; ++i) {
    const int next = i + kStages - 1;
    if (thread == 0 && next < pages) {
      // Its place was page i - 1's.
      if (i > 0) ptx::barrier_wait(empty + 8 * (next % kStages), (i - 1) / kStages % 2);
      fetch(next);
    }
    __syncwarp();
    ptx::barrier_wait(full + 8 * (i % kStages), i / kStages % 2);
    if (first_page + i < own_end) {
      attend_page(ring + i % kStages * Reader::kBytes, (first_page + i) * 16, length, queries,
                  visible, scale_log2, state, lane);
    }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(empty + 8 * (i % kStages));
  }

  state.gather_weights();
#pragma unroll
  for (int n = 0; n < kTilesN; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int64_t at = place(8 * n + 2 * (lane % 4) + i);
      if (at < 0) continue;
      const float inverse = 1.0f / state.weight[n][i];
#pragma unroll
      for (int t = 0; t < kHeadDim / 16; ++t) {
#pragma unroll
        for (int hi = 0; hi < 2; ++hi) {
          p.out[at + t * 16 + hi * 8 + lane / 4] = state.output(n, t, i, hi) * inverse;
        }
      }
    }
  }
}

template <class Reader, int kHeadDim>
void start(const Params& p, int tiles, cudaStream_t stream) {
  launch(chunk_attention_sm90a_kernel<Reader, kHeadDim>,
         dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(p.cache.kv_heads)), kThreads,
         shared_bytes<Reader>(), p, stream);
}

template <int kHeadDim>
ChunkLauncher pick(const PageLayout& layout) {
  if (layout.bits == 4) return start<Int4Reader<kHeadDim>, kHeadDim>;
  if (layout.bits == 8) return start<Int8Reader<kHeadDim>, kHeadDim>;
  return start<HalfReader<kHeadDim>, kHeadDim>;
}

}  // namespace

ChunkLauncher find_chunk(const PageLayout& layout) {
  if (!layout.fragments) return nullptr;
  if (layout.head_dim == 64) return pick<64>(layout);
  if (layout.head_dim == 96) return pick<96>(layout);
  if (layout.head_dim == 128) return pick<128>(layout);
  return layout.head_dim == 256 ? pick<256>(layout) : nullptr;
}

}  // namespace atom::cuda::attention
