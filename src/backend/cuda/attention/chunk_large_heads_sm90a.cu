// chunk_large_heads_sm90a: as chunk_tiles_sm90a.cu, for heads of 256, whose sums need the registers
// of a whole warpgroup for few columns.
//   q, out, cache   as decode_sm90a.cu
// Work: a CTA takes a tile of query columns (chunk_columns.cuh), a warp eight of them. All warps
// read the same pages, which a ring of bulk copies brings to shared memory:
//
//   ring     | page i | page i + 1 | ...    full: the copy's bytes;  empty: an arrival a warp
//   warp     waits for full, adds the page to its columns (softmax_state.cuh), arrives at empty
//
// Bound: issue slots (unpacking and softmax beside the tensor cores).
#include "backend/cuda/attention/chunk_columns.cuh"
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

template <class Reader, int kHeadDim>
__global__ __launch_bounds__(kThreads) void chunk_large_heads_sm90a_kernel(
    const __grid_constant__ Params p) {
  constexpr int kColumns = chunk_columns(kHeadDim), kTilesN = kColumns / kWarps / 8;
  uint8_t* ring = dynamic_shared();
  const uint32_t full = ptx::shared_address(ring + kStages * Reader::kBytes);
  const uint32_t empty = full + 8 * kStages;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const ChunkTile tile = find_tile(p, kColumns, static_cast<int>(blockIdx.x));
  if (tile.count == 0) return;
  const int kv_head = tile.kv_head;
  const PageRange range = visible_pages(p, tile, kColumns);
  const int prefix = p.cache.prefix_tokens;
  const int column0 = tile.column + warp * (kColumns / kWarps);
  // The row of q and out of a column of this warp; negative behind the last.
  const auto place = [&](int column) {
    const int64_t row = tile.row(column0 + column);
    return row < 0 ? row : row * kHeadDim;
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
      const int token = tile.token(column0 + 8 * n + 2 * (lane % 4) + i);
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

  const int first_page = range.first, pages = range.end - range.first;
  const int own_end = tile.token(column0 + kColumns / kWarps - 1) / 16 + 1;
  const int32_t* table = range.table + first_page;
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
      attend_page(ring + i % kStages * Reader::kBytes, (first_page + i) * 16, range.length, false,
                  queries, visible, scale_log2, state, lane);
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
  launch(chunk_large_heads_sm90a_kernel<Reader, kHeadDim>,
         dim3(static_cast<unsigned>(p.cache.kv_heads * tiles)), kThreads, shared_bytes<Reader>(), p,
         stream);
}

}  // namespace

ChunkLauncher find_chunk_of_large_heads(const PageLayout& layout) {
  if (layout.head_dim != 256) return nullptr;
  if (layout.bits == 4) return start<Int4Reader<256>, 256>;
  if (layout.bits == 8) return start<Int8Reader<256>, 256>;
  return start<HalfReader<256>, 256>;
}

}  // namespace atom::cuda::attention
