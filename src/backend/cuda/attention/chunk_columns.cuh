// Which query columns a CTA of the chunk kernels has, and which tokens those see. Column r of a KV
// head of a sequence is (new token r / group, head r % group of the group).
#pragma once

#include "backend/cuda/attention/attention_kernels.h"
#include "backend/cuda/attention/softmax_state.cuh"

namespace atom::cuda::attention {

// A run of columns of one KV head.
struct ChunkTile {
  int column = 0;           // the first
  int past = 0, count = 0;  // tokens of the sequence; count 0: the CTA has no columns
  int page_offset = 0;      // of the sequence's first page
  int kv_head = 0;
  int group = 1;
  int64_t row0 = 0;  // row of the first new token's first head of this KV head in q and out
  int heads = 0;

  // Position of a column's token; of the last one for columns behind the last.
  __device__ int token(int r) const { return past + min(r / group, count - 1); }
  // The column's row of q and out, heads counted; negative behind the last.
  __device__ int64_t row(int r) const {
    const int token = r / group;
    return token < count ? row0 + static_cast<int64_t>(token) * heads + r % group : -1;
  }
};

// Tile `index` of all, of `columns` columns: for each run of columns every KV head; the last of a
// sequence, which see most, come first.
__device__ inline ChunkTile find_tile(const Params& p, int columns, int index) {
  const int group = p.heads / p.cache.kv_heads, kv_head = index % p.cache.kv_heads;
  index /= p.cache.kv_heads;
  for (int i = 0; i < p.item_count; ++i) {
    const ChunkItem item = p.chunks[i];
    const int tiles = (item.count * group + columns - 1) / columns;
    if (index < tiles) {
      return {.column = (tiles - 1 - index) * columns,
              .past = item.past,
              .count = item.count,
              .page_offset = item.page_offset,
              .kv_head = kv_head,
              .group = group,
              .row0 = static_cast<int64_t>(item.row) * p.heads + kv_head * group,
              .heads = p.heads};
    }
    index -= tiles;
  }
  return {};
}

// Pages that hold what any of a tile's columns sees.
struct PageRange {
  int first = 0, end = 0;
  int length = 0;                  // tokens of the sequence, the new ones included
  const int32_t* table = nullptr;  // of the sequence's pages
};
__device__ inline PageRange visible_pages(const Params& p, const ChunkTile& tile, int columns) {
  const int first = window_begin(p.window, p.cache.prefix_tokens, tile.token(tile.column));
  return {.first = max(0, first) / 16,
          .end = tile.token(tile.column + columns - 1) / 16 + 1,
          .length = tile.past + tile.count,
          .table = p.sequences.pages + tile.page_offset};
}

}  // namespace atom::cuda::attention
