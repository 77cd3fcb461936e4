#include "backend/ref/ref_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/ref/ref_objects.h"
#include "base/parallel.h"
#include "ops/numerics.h"

namespace atom::ref {
namespace {

std::span<const float> head_of(std::span<const float> row, int64_t head, int64_t head_dim) {
  return row.subspan(static_cast<size_t>(head * head_dim), static_cast<size_t>(head_dim));
}

// The cosines and sines of one position: [rotary_dim / 2, 2].
std::span<const float> angles_at(std::span<const float> cos_sin, int64_t position,
                                 int64_t rotary_dim) {
  return cos_sin.subspan(static_cast<size_t>(position * rotary_dim),
                         static_cast<size_t>(rotary_dim));
}

void normalise(std::span<float> x, std::span<const float> weight, float eps) {
  const float factor = numerics::rms_factor(x, eps);
  for (size_t i = 0; i < x.size(); ++i) x[i] = x[i] * factor * weight[i];
}

// Step by step in float, as docs/quantization.md prescribes for what will be rounded to codes.
void rope(std::span<float> x, std::span<const float> angles) {
  const size_t half = angles.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    numerics::rotate_pair(x[i], x[i + half], angles[2 * i], angles[2 * i + 1]);
  }
}

void rope(std::span<double> x, std::span<const float> angles) {
  const size_t half = angles.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    const double cos = angles[2 * i], sin = angles[2 * i + 1];
    const double a = x[i], b = x[i + half];
    x[i] = a * cos - b * sin;
    x[i + half] = b * cos + a * sin;
  }
}

// One query head against the keys and values of one sequence, prefix first.
class HeadAttention {
 public:
  HeadAttention(const AttentionArgs& args, const SequenceSlice& sequence, int64_t kv_head)
      : args_(args),
        cache_(*static_cast<const RefKvCache*>(args.cache)),
        sequence_(sequence),
        kv_head_(kv_head) {}

  // token: index into the sequence of the query's own token.
  void run(std::span<const float> q, int64_t token, std::span<float> out) {
    const int64_t last = cache_.shape().prefix_tokens + token;
    const int64_t first = args_.window == 0 ? 0 : std::max<int64_t>(0, last - args_.window + 1);
    std::vector<double> weights;
    for (int64_t position = first; position <= last; ++position) {
      weights.push_back(args_.scale * dot(q, key(position)));
    }
    const double top = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    for (double& w : weights) sum += w = std::exp(w - top);
    std::vector<double> y(out.size());
    for (int64_t position = first; position <= last; ++position) {
      const std::span<const double> v = load(RefKvCache::kValue, position);
      const double w = weights[static_cast<size_t>(position - first)] / sum;
      for (size_t i = 0; i < y.size(); ++i) y[i] += w * v[i];
    }
    for (size_t i = 0; i < y.size(); ++i) out[i] = static_cast<float>(y[i]);
  }

 private:
  static double dot(std::span<const float> a, std::span<const double> b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  }
  // Positions count the prefix: position p >= P holds the sequence's token p - P.
  std::span<const double> load(RefKvCache::Part part, int64_t position) const {
    const int64_t prefix = cache_.shape().prefix_tokens;
    if (position < prefix) return cache_.load_prefix(args_.layer, part, position, kv_head_);
    return cache_.load(args_.layer, part, sequence_.pages, position - prefix, kv_head_);
  }
  std::span<const double> key(int64_t position) {
    const std::span<const double> stored = load(RefKvCache::kKey, position);
    if (!cache_.shape().format.pre_rope) return stored;
    rotated_.assign(stored.begin(), stored.end());
    rope(rotated_, angles_at(args_.cos_sin, position, args_.rotary_dim));
    return rotated_;
  }

  const AttentionArgs& args_;
  const RefKvCache& cache_;
  const SequenceSlice& sequence_;
  int64_t kv_head_;
  std::vector<double> rotated_;
};

}  // namespace

void rope_append_kv(const RopeAppendArgs& args) {
  auto& cache = *static_cast<RefKvCache*>(args.cache);
  const auto& qkv = *static_cast<const RefTensor*>(args.qkv);
  auto& queries = *static_cast<RefTensor*>(args.q);
  const KvFormat& format = cache.shape().format;
  const int64_t kv_heads = cache.shape().kv_heads, head_dim = cache.shape().head_dim;
  for (const SequenceSlice& sequence : args.batch->sequences) {
    for (int64_t i = 0; i < sequence.token_count; ++i) {
      const int64_t t = sequence.first_token + i, token = sequence.past + i;
      const std::span<const float> angles =
          angles_at(args.cos_sin, args.batch->positions[static_cast<size_t>(t)], args.rotary_dim);
      const int32_t page = sequence.pages[static_cast<size_t>(token / kPageTokens)];
      const int64_t slot = token % kPageTokens;
      const std::span<const float> row = qkv.row(t);
      for (int64_t h = 0; h < args.heads; ++h) {
        const std::span<float> q = queries.row(t).subspan(static_cast<size_t>(h * head_dim),
                                                          static_cast<size_t>(head_dim));
        std::ranges::copy(head_of(row, h, head_dim), q.begin());
        if (!args.q_norm.empty()) normalise(q, args.q_norm, args.norm_eps);
        rope(q, angles);
        if (format.hadamard) numerics::hadamard(q);
      }
      for (int64_t h = 0; h < kv_heads; ++h) {
        const std::span<const float> source = head_of(row, args.heads + h, head_dim);
        std::vector<float> k(source.begin(), source.end());
        if (!args.k_norm.empty()) normalise(k, args.k_norm, args.norm_eps);
        if (!format.pre_rope) rope(k, angles);
        if (format.centered) {
          const std::span<const float> mean = head_of(args.k_mean, h, head_dim);
          for (size_t j = 0; j < k.size(); ++j) k[j] -= mean[j];
        }
        if (format.hadamard) numerics::hadamard(k);
        cache.store(args.layer, RefKvCache::kKey, page, slot, h, k);
        cache.store(args.layer, RefKvCache::kValue, page, slot, h,
                    head_of(row, args.heads + kv_heads + h, head_dim));
      }
    }
  }
}

void paged_attention(const AttentionArgs& args) {
  const auto& queries = *static_cast<const RefTensor*>(args.q);
  auto& out = *static_cast<RefTensor*>(args.out);
  const int64_t head_dim = args.cache->shape().head_dim;
  const int64_t heads_per_kv = args.heads / args.cache->shape().kv_heads;
  for (const SequenceSlice& sequence : args.batch->sequences) {
    parallel_for(sequence.token_count * args.heads, [&](int64_t item) {
      const int64_t i = item / args.heads, h = item % args.heads;
      const int64_t t = sequence.first_token + i;
      HeadAttention(args, sequence, h / heads_per_kv)
          .run(
              head_of(queries.row(t), h, head_dim), sequence.past + i,
              out.row(t).subspan(static_cast<size_t>(h * head_dim), static_cast<size_t>(head_dim)));
    });
  }
}

}  // namespace atom::ref
