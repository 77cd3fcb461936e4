#include "backend/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/objects.h"
#include "base/parallel.h"

namespace atom::cpu {
namespace {

constexpr int64_t kQueryTokens = 64;  // of an item
// Keys whose sums are formed apart and then added up: [0, prefix + 512), [prefix + 512, ...), and
// so on, however many queries an item has. So no token's result depends on the rest of the batch.
constexpr int64_t kChunkKeys = 512;

// Plain facts that the loops below share.
struct Context {
  const AttentionArgs& args;
  const CpuKvCache& cache;
  const float* q;
  float* out;
  int64_t q_stride;
  int64_t repeat;  // query heads a KV head
  int64_t dim;
  const float* page_angles;  // null unless K stands before RoPE

  const SequenceSlice& slice(const AttentionItem& item) const {
    return args.batch->sequences[item.sequence];
  }
  // Index among its sequence's keys (prefix included) of a query token.
  int64_t key_of(const SequenceSlice& s, int64_t token) const {
    return cache.shape().prefix_tokens + s.past + token;
  }
  // Where the block of keys starts that holds the first key a query sees.
  int64_t first_key(int64_t query_key) const {
    if (args.window == 0) return 0;
    const int64_t key = std::max<int64_t>(0, query_key - args.window + 1);
    const int64_t chunk = chunk_start(key);
    // A prefix may shift the blocks of the first chunk.
    if (chunk == 0 && cache.shape().prefix_tokens > 0) return 0;
    return key - (key - chunk) % kBlockKeys;
  }
  int64_t chunk_start(int64_t key) const {
    const int64_t prefix = cache.shape().prefix_tokens;
    return key < prefix + kChunkKeys ? 0 : key - (key - prefix) % kChunkKeys;
  }
  int64_t chunk_end(int64_t key) const {
    const int64_t start = chunk_start(key);
    return (start == 0 ? cache.shape().prefix_tokens : start) + kChunkKeys;
  }
};

// Rows of one item's result, in the order that AttendJob describes.
struct ItemResult {
  float* maxima;
  float* totals;
  float* sums;

  ItemResult(float* buffer, int64_t rows)
      : maxima(buffer), totals(buffer + rows), sums(buffer + round_up(2 * rows, 16)) {}
  static int64_t floats(int64_t rows, int64_t padded_dim) {
    return round_up(2 * rows, 16) + rows * padded_dim;
  }
};

void attend(const Kernels& kernels, const Context& c, const AttentionItem& item,
            const ItemResult& result) {
  const KvCacheShape& shape = c.cache.shape();
  const KvLayout& layout = c.cache.layout();
  const SequenceSlice& slice = c.slice(item);
  const int64_t rows = item.tokens * c.repeat;
  AttendJob job = {
      .q = c.q + (slice.first_token + item.token) * c.q_stride + item.kv_head * c.repeat * c.dim,
      .q_stride = c.q_stride,
      .tokens = item.tokens,
      .repeat = c.repeat,
      .dim = c.dim,
      .scale = c.args.scale,
      .query_key = c.key_of(slice, item.token),
      .window = c.args.window,
      .key = item.key,
      .key_end = item.key_end,
      .prefix = shape.prefix_tokens,
      .prefix_k = c.cache.prefix_k(c.args.layer) + item.kv_head * c.dim,
      .prefix_v = c.cache.prefix_v(c.args.layer) + item.kv_head * c.dim,
      .prefix_stride = shape.kv_heads * c.dim,
      .kind = layout.kind,
      .nibbles = layout.nibbles,
      .padded_dim = layout.padded_dim,
      .plane_bytes = layout.plane_bytes,
      .scales_offset = layout.scales_offset,
      .prefix_angles = shape.format.pre_rope ? c.args.cos_sin.data() : nullptr,
      .page_angles = c.page_angles,
      .rotary_dim = c.args.rotary_dim,
      .maxima = result.maxima,
      .totals = result.totals,
      .sums = result.sums,
  };
  struct Blocks;
  struct Scratch;
  const int64_t pages =
      (std::max<int64_t>(0, item.key_end - job.prefix) + kPageTokens - 1) / kPageTokens;
  const uint8_t** blocks = thread_scratch<const uint8_t*, Blocks>(pages);
  const int64_t first = std::max<int64_t>(0, item.key - job.prefix) / kPageTokens;
  for (int64_t i = first; i < pages; ++i) {
    blocks[i] = c.cache.block(c.args.layer, slice.pages[i], item.kv_head);
  }
  job.blocks = blocks;
  job.scratch = thread_scratch<float, Scratch>(attend_scratch(rows, layout.padded_dim));
  kernels.attend(job);
}

// Adds the sums of a later chunk of keys.
void add_chunk(const ItemResult& to, const ItemResult& chunk, int64_t rows, int64_t stride) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  for (int64_t r = 0; r < rows; ++r) {
    if (chunk.maxima[r] == kNone) continue;  // the query sees none of its keys
    const float most = std::max(to.maxima[r], chunk.maxima[r]);
    const float shrink = std::exp(to.maxima[r] - most);
    const float factor = std::exp(chunk.maxima[r] - most);
    to.maxima[r] = most;
    to.totals[r] = to.totals[r] * shrink + chunk.totals[r] * factor;
    float* sums = to.sums + r * stride;
    const float* more = chunk.sums + r * stride;
    for (int64_t d = 0; d < stride; ++d) sums[d] = sums[d] * shrink + more[d] * factor;
  }
}

void write_rows(const Context& c, const AttentionItem& item, const ItemResult& result) {
  const int64_t rows = item.tokens * c.repeat, stride = c.cache.layout().padded_dim;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t token = c.slice(item).first_token + item.token + r / c.repeat;
    float* out = c.out + token * c.q_stride + (item.kv_head * c.repeat + r % c.repeat) * c.dim;
    const float inverse = 1.0f / result.totals[r];
    for (int64_t d = 0; d < c.dim; ++d) out[d] = result.sums[r * stride + d] * inverse;
  }
}

// All keys of an item, chunk by chunk.
void attend_whole(const Kernels& kernels, const Context& c, const AttentionItem& item) {
  struct Whole;
  struct Chunk;
  const int64_t rows = item.tokens * c.repeat, stride = c.cache.layout().padded_dim;
  const int64_t floats = ItemResult::floats(rows, stride);
  const ItemResult result(thread_scratch<float, Whole>(floats), rows);
  AttentionItem part = item;
  part.key_end = std::min(item.key_end, c.chunk_end(item.key));
  attend(kernels, c, part, result);
  while (part.key_end < item.key_end) {
    part.key = part.key_end;
    part.key_end = std::min(item.key_end, c.chunk_end(part.key));
    const ItemResult chunk(thread_scratch<float, Chunk>(floats), rows);
    attend(kernels, c, part, chunk);
    add_chunk(result, chunk, rows, stride);
  }
  write_rows(c, item, result);
}

const float* page_angles(const AttentionArgs& args, AttentionWorkspace& work) {
  const KvCacheShape& shape = args.cache->shape();
  if (!shape.format.pre_rope) return nullptr;
  int64_t pages = 0;  // of the longest sequence
  for (const SequenceSlice& slice : args.batch->sequences) {
    pages = std::max(pages, (slice.past + slice.token_count + kPageTokens - 1) / kPageTokens);
  }
  return work.angles.of(args.cos_sin, args.rotary_dim, shape.prefix_tokens, pages);
}

void plan(const Context& c, AttentionWorkspace& work) {
  work.items.clear();
  work.merges.clear();
  int64_t partials = 0;
  const auto& sequences = c.args.batch->sequences;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const SequenceSlice& slice = sequences[s];
    for (int64_t token = 0; token < slice.token_count; token += kQueryTokens) {
      const int64_t tokens = std::min(kQueryTokens, slice.token_count - token);
      const int64_t key = c.first_key(c.key_of(slice, token));
      const int64_t key_end = c.key_of(slice, token + tokens - 1) + 1;
      const bool split = tokens <= 4 && key_end > c.chunk_end(key);
      for (int64_t h = 0; h < c.cache.shape().kv_heads; ++h) {
        AttentionItem item = {static_cast<int64_t>(s), h, token, tokens, key, key_end, -1};
        if (!split) {
          work.items.push_back(item);
          continue;
        }
        work.merges.push_back(static_cast<int64_t>(work.items.size()));
        for (; item.key < key_end; item.key = item.key_end) {
          item.key_end = std::min(key_end, c.chunk_end(item.key));
          item.partial = partials;
          partials += ItemResult::floats(tokens * c.repeat, c.cache.layout().padded_dim);
          work.items.push_back(item);
        }
      }
    }
  }
  if (work.partials.size() < partials && !work.partials.allocate(2 * partials)) std::abort();
}

// Adds up the items that follow one another with the same queries.
void merge(const Context& c, AttentionWorkspace& work, int64_t first) {
  const AttentionItem& head = work.items[first];
  const int64_t rows = head.tokens * c.repeat;
  const auto part = [&](size_t i) {
    return ItemResult(work.partials.data() + work.items[i].partial, rows);
  };
  const auto start = static_cast<size_t>(first);
  for (size_t i = start + 1;
       i < work.items.size() && work.items[i].partial >= 0 &&
       work.items[i].sequence == head.sequence && work.items[i].kv_head == head.kv_head &&
       work.items[i].token == head.token;
       ++i) {
    add_chunk(part(start), part(i), rows, c.cache.layout().padded_dim);
  }
  write_rows(c, head, part(start));
}

}  // namespace

void paged_attention(const Kernels& kernels, const AttentionArgs& args, AttentionWorkspace& work) {
  const auto& cache = static_cast<const CpuKvCache&>(*args.cache);
  const int64_t dim = cache.shape().head_dim;
  const Context c = {args,
                     cache,
                     static_cast<const CpuTensor&>(*args.q).row(0),
                     static_cast<CpuTensor&>(*args.out).row(0),
                     args.heads * dim,
                     args.heads / cache.shape().kv_heads,
                     dim,
                     page_angles(args, work)};
  plan(c, work);
  parallel_for(static_cast<int64_t>(work.items.size()), [&](int64_t i) {
    const AttentionItem& item = work.items[i];
    if (item.partial < 0) return attend_whole(kernels, c, item);
    attend(kernels, c, item,
           ItemResult(work.partials.data() + item.partial, item.tokens * c.repeat));
  });
  parallel_for(static_cast<int64_t>(work.merges.size()),
               [&](int64_t i) { merge(c, work, work.merges[i]); });
}

}  // namespace atom::cpu
