// The attention kernels as host code sees them. All pointers are GPU memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/attention/page_format.h"

namespace atom::cuda::attention {

// The sequences of a batch.
struct SequenceView {
  const int32_t* pages = nullptr;        // page indices, sequence after sequence
  const int32_t* page_offset = nullptr;  // [S] of a sequence's first page
  const int32_t* past = nullptr;         // [S] tokens before the batch's
  const int32_t* count = nullptr;  // [S] the batch's tokens, whose K and V are in the pages too
  const int32_t* row = nullptr;    // [S] row of the first of them in q and out
};

// A sequence with one new token, in 16 bytes: all that a CTA must know before it can ask for pages
// comes by one load.
struct alignas(16) DecodeItem {
  int32_t past = 0;         // tokens before it
  int32_t page_offset = 0;  // of the sequence's first page in SequenceView::pages
  int32_t row = 0;          // of the token in q and out
  int32_t unused = 0;
};

// A sequence with several new tokens, likewise.
struct alignas(16) ChunkItem {
  int32_t past = 0;         // tokens before them
  int32_t count = 0;        // of them
  int32_t page_offset = 0;  // of the sequence's first page in SequenceView::pages
  int32_t row = 0;          // of the first of them in q and out
};

// One layer of a cache.
struct CacheView {
  uint8_t* records = nullptr;  // of (page, kv head) at page * page_stride + kv_head * record_bytes
  int64_t page_stride = 0;     // bytes
  int record_bytes = 0;
  PageLayout layout;
  int kv_heads = 0;
  int prefix_tokens = 0;            // in front of every sequence
  const float* prefix_k = nullptr;  // [prefix tokens, KH, DH]
  const float* prefix_v = nullptr;
};

// out[row, h] = softmax(scale * q[row, h] . K) V over what the row's token sees: the prefix and its
// sequence's tokens up to itself, the last `window` of them where that is not 0.
struct Params {
  const float* q = nullptr;  // [T, H, DH]
  float* out = nullptr;      // [T, H, DH]
  SequenceView sequences;
  CacheView cache;
  const DecodeItem* decode = nullptr;       // [items] decode: what to attend to
  const ChunkItem* chunks = nullptr;        // [items] chunks: what to attend to
  const int32_t* token_sequence = nullptr;  // [T] exact: the sequence of each token, or -1
  int item_count = 0;                       // of items, or tokens
  int heads = 0;
  float scale = 0.0f;
  int window = 0;
  int group = 0;                 // decode: query heads of a KV head
  int splits = 1;                // decode: parts of a sequence
  int cluster = 1;               // decode: splits that a cluster of CTAs merges; divides splits
  int warps = 0;                 // decode: of a CTA, kWarps or kMostWarps
  int stages = 0;                // decode: records of a warp's ring
  int ahead = 0;                 // decode: of these, fetched before the queries are there
  int shared_bytes = 0;          // decode: that a CTA asks for; more than it uses spreads CTAs out
  bool beside_chunks = false;    // decode: the launch before is of the chunks of the same batch
  float* partials = nullptr;     // decode: [item][kv head][split / cluster][partial_floats]
  uint32_t* counters = nullptr;  // decode: [item][kv head], zero between launches
  int most_ctas = 0;             // chunks: as many as run at once, one a multiprocessor
};

// Floats of a partial result in memory: sums [head][DH], maxima [head], weights [head], whole
// vectors of four.
constexpr int partial_floats(int heads, int head_dim) {
  return (heads * (head_dim + 2) + 3) / 4 * 4;
}
inline constexpr int kMostSplits = 128;  // of a sequence

inline constexpr int kWarps = 4;
inline constexpr int kThreads = 32 * kWarps;
inline constexpr int kMostWarps = 8;  // of a decode CTA, where CTAs are few
// Whether there are such: two of them, the most that registers allow, must have room for their
// rings.
constexpr bool has_wide_decode(int head_dim, int record_bytes) {
  return head_dim <= 128 && record_bytes <= 4352;
}
// CTAs of the decode kernel that a multiprocessor's registers have room for.
constexpr int decode_ctas(int head_dim, int warps) { return (head_dim > 128 ? 8 : 16) / warps; }
inline constexpr int kMostCluster = 8;
inline constexpr int kGroup = 8;  // query heads a KV head: columns of the tensor core products

// Query columns (token, head of the group) of a CTA of the chunk kernels.
constexpr int chunk_columns(int head_dim) { return head_dim > 128 ? 8 * kWarps : 128; }

// One new token a sequence; a KV head has at most kGroup query heads. Null where there is no
// kernel.
using Launcher = void (*)(const Params& params, cudaStream_t stream);
Launcher find_decode(const PageLayout& layout);
// Several new tokens a sequence, `tiles` tiles of chunk_columns over all items.
using ChunkLauncher = void (*)(const Params& params, int tiles, cudaStream_t stream);
ChunkLauncher find_chunk(const PageLayout& layout);
ChunkLauncher find_chunk_of_large_heads(const PageLayout& layout);  // a part of it
// Every format and head size, in float throughout; slow.
void launch_exact(const Params& params, cudaStream_t stream);

}  // namespace atom::cuda::attention
