#include "backend/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/objects.h"
#include "base/parallel.h"
#include "ops/numerics.h"

namespace atom::cpu {
namespace {

constexpr int64_t kQueryTokens = 32;  // of an item
constexpr int64_t kChunkKeys = 512;   // of an item with few queries
constexpr int64_t kBlockKeys = 64;    // dequantized at a time

// Plain facts that the loops below share.
struct Context {
  const AttentionArgs& args;
  const CpuKvCache& cache;
  const float* q;
  float* out;
  int64_t q_stride;
  int64_t repeat;  // query heads a KV head
  int64_t dim;

  const SequenceSlice& slice(const AttentionItem& item) const {
    return args.batch->sequences[item.sequence];
  }
  // Index among its sequence's keys (prefix included) of a query token.
  int64_t key_of(const SequenceSlice& s, int64_t token) const {
    return cache.shape().prefix_tokens + s.past + token;
  }
  int64_t first_key(int64_t query_key) const {
    return args.window == 0 ? 0 : std::max<int64_t>(0, query_key - args.window + 1);
  }
};

// K and V of keys [key, key + n) as floats, [n, DH] each, K ready for the dot product.
void load_keys(const Context& c, const AttentionItem& item, int64_t key, int64_t n, float* k,
               float* v) {
  const KvCacheShape& shape = c.cache.shape();
  const SequenceSlice& slice = c.slice(item);
  for (int64_t i = 0; i < n;) {
    const int64_t at = key + i - shape.prefix_tokens;
    int64_t count = 1;
    if (at < 0) {
      const int64_t from = ((key + i) * shape.kv_heads + item.kv_head) * c.dim;
      std::copy_n(c.cache.prefix_k(c.args.layer) + from, c.dim, k + i * c.dim);
      std::copy_n(c.cache.prefix_v(c.args.layer) + from, c.dim, v + i * c.dim);
    } else {
      count = std::min(n - i, kPageTokens - at % kPageTokens);
      load_kv(c.cache.layout(),
              c.cache.block(c.args.layer, slice.pages[at / kPageTokens], item.kv_head),
              at % kPageTokens, count, k + i * c.dim, v + i * c.dim);
    }
    i += count;
  }
  if (!shape.format.pre_rope) return;
  const int64_t half = c.args.rotary_dim / 2;
  for (int64_t i = 0; i < n; ++i) {
    const float* cos_sin = c.args.cos_sin.data() + (key + i) * c.args.rotary_dim;
    float* head = k + i * c.dim;
    for (int64_t d = 0; d < half; ++d) {
      numerics::rotate_pair(head[d], head[d + half], cos_sin[2 * d], cos_sin[2 * d + 1]);
    }
  }
}

// Per query row (token, then head): running maximum, sum of weights, weighted sum of V [DH].
void attend(const Context& c, const AttentionItem& item, float* maxima, float* totals,
            float* sums) {
  struct Keys;
  struct Values;
  float* k = thread_scratch<float, Keys>(kBlockKeys * c.dim);
  float* v = thread_scratch<float, Values>(kBlockKeys * c.dim);
  const SequenceSlice& slice = c.slice(item);
  const int64_t rows = item.tokens * c.repeat;
  std::fill_n(maxima, rows, -std::numeric_limits<float>::infinity());
  std::fill_n(totals, rows, 0.0f);
  std::fill_n(sums, rows * c.dim, 0.0f);
  for (int64_t key = item.key; key < item.key_end; key += kBlockKeys) {
    const int64_t n = std::min(kBlockKeys, item.key_end - key);
    load_keys(c, item, key, n, k, v);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t token = item.token + r / c.repeat;
      const int64_t head = item.kv_head * c.repeat + r % c.repeat;
      const float* q = c.q + (slice.first_token + token) * c.q_stride + head * c.dim;
      const int64_t last = c.key_of(slice, token);
      const int64_t begin = std::max(key, c.first_key(last)) - key;
      const int64_t end = std::min(key + n, last + 1) - key;
      if (begin >= end) continue;
      float scores[kBlockKeys];
      float block_max = maxima[r];
      for (int64_t j = begin; j < end; ++j) {
        float dot = 0;
        for (int64_t d = 0; d < c.dim; ++d) dot += q[d] * k[j * c.dim + d];
        scores[j] = dot * c.args.scale;
        block_max = std::max(block_max, scores[j]);
      }
      float* sum = sums + r * c.dim;
      if (block_max > maxima[r]) {
        const float shrink = std::exp(maxima[r] - block_max);
        totals[r] *= shrink;
        for (int64_t d = 0; d < c.dim; ++d) sum[d] *= shrink;
        maxima[r] = block_max;
      }
      for (int64_t j = begin; j < end; ++j) {
        const float weight = std::exp(scores[j] - block_max);
        totals[r] += weight;
        for (int64_t d = 0; d < c.dim; ++d) sum[d] += weight * v[j * c.dim + d];
      }
    }
  }
}

float* out_row(const Context& c, const AttentionItem& item, int64_t r) {
  const int64_t token = c.slice(item).first_token + item.token + r / c.repeat;
  return c.out + token * c.q_stride + (item.kv_head * c.repeat + r % c.repeat) * c.dim;
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
      const bool split = tokens <= 4 && key_end - key > kChunkKeys;
      for (int64_t h = 0; h < c.cache.shape().kv_heads; ++h) {
        AttentionItem item = {static_cast<int64_t>(s), h, token, tokens, key, key_end, -1};
        if (!split) {
          work.items.push_back(item);
          continue;
        }
        work.merges.push_back(static_cast<int64_t>(work.items.size()));
        for (; item.key < key_end; item.key += kChunkKeys) {
          item.key_end = std::min(key_end, item.key + kChunkKeys);
          item.partial = partials;
          partials += tokens * c.repeat * (c.dim + 2);
          work.items.push_back(item);
        }
      }
    }
  }
  if (work.partials.size() < partials && !work.partials.allocate(2 * partials)) std::abort();
}

// Adds up the items that follow one another with the same queries.
void merge(const Context& c, const AttentionWorkspace& work, int64_t first) {
  const AttentionItem& head = work.items[first];
  const int64_t rows = head.tokens * c.repeat;
  size_t end = static_cast<size_t>(first);
  while (end < work.items.size() && work.items[end].partial >= 0 &&
         work.items[end].sequence == head.sequence && work.items[end].kv_head == head.kv_head &&
         work.items[end].token == head.token) {
    ++end;
  }
  for (int64_t r = 0; r < rows; ++r) {
    float most = -std::numeric_limits<float>::infinity();
    for (size_t i = first; i < end; ++i) {
      most = std::max(most, work.partials[work.items[i].partial + r]);
    }
    float* out = out_row(c, head, r);
    std::fill_n(out, c.dim, 0.0f);
    float total = 0;
    for (size_t i = first; i < end; ++i) {
      const float* part = work.partials.data() + work.items[i].partial;
      const float factor = std::exp(part[r] - most);
      total += part[rows + r] * factor;
      for (int64_t d = 0; d < c.dim; ++d) out[d] += part[2 * rows + r * c.dim + d] * factor;
    }
    for (int64_t d = 0; d < c.dim; ++d) out[d] /= total;
  }
}

}  // namespace

void paged_attention(const AttentionArgs& args, AttentionWorkspace& work) {
  const auto& cache = static_cast<const CpuKvCache&>(*args.cache);
  const int64_t dim = cache.shape().head_dim;
  const Context c = {args,
                     cache,
                     static_cast<const CpuTensor&>(*args.q).row(0),
                     static_cast<CpuTensor&>(*args.out).row(0),
                     args.heads * dim,
                     args.heads / cache.shape().kv_heads,
                     dim};
  plan(c, work);
  parallel_for(static_cast<int64_t>(work.items.size()), [&](int64_t i) {
    const AttentionItem& item = work.items[i];
    const int64_t rows = item.tokens * c.repeat;
    struct Partial;
    float* part = item.partial >= 0 ? work.partials.data() + item.partial
                                    : thread_scratch<float, Partial>(rows * (dim + 2));
    attend(c, item, part, part + rows, part + 2 * rows);
    if (item.partial >= 0) return;
    for (int64_t r = 0; r < rows; ++r) {
      float* out = out_row(c, item, r);
      const float inverse = 1.0f / part[rows + r];
      for (int64_t d = 0; d < dim; ++d) out[d] = part[2 * rows + r * dim + d] * inverse;
    }
  });
  parallel_for(static_cast<int64_t>(work.merges.size()),
               [&](int64_t i) { merge(c, work, work.merges[i]); });
}

}  // namespace atom::cpu
