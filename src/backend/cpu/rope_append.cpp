#include "backend/cpu/attention.h"
#include "backend/cpu/objects.h"
#include "base/parallel.h"
#include "ops/numerics.h"

namespace atom::cpu {
namespace {

// The new tokens of one sequence that fall into one page: stored by one thread, since tokens of a
// page share bytes.
struct PageRun {
  int64_t sequence, first, count;  // tokens within the sequence's slice
};

void norm_head(std::span<float> head, std::span<const float> weight, float eps) {
  const float factor = numerics::rms_factor(head, eps);
  for (size_t i = 0; i < head.size(); ++i) head[i] = (head[i] * factor) * weight[i];
}

void rotate_head(std::span<float> head, const float* cos_sin, int64_t rotary_dim) {
  const int64_t half = rotary_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    numerics::rotate_pair(head[i], head[i + half], cos_sin[2 * i], cos_sin[2 * i + 1]);
  }
}

void append_token(const RopeAppendArgs& args, CpuKvCache& cache, const float* qkv, int64_t position,
                  int64_t page, int64_t slot, float* q) {
  const KvCacheShape& shape = cache.shape();
  const KvFormat& format = shape.format;
  const int64_t dim = shape.head_dim;
  const auto size = static_cast<size_t>(dim);
  const float* cos_sin = args.cos_sin.data() + position * args.rotary_dim;
  for (int64_t h = 0; h < args.heads; ++h) {
    const std::span<float> head(q + h * dim, size);
    std::copy_n(qkv + h * dim, dim, head.data());
    if (!args.q_norm.empty()) norm_head(head, args.q_norm, args.norm_eps);
    rotate_head(head, cos_sin, args.rotary_dim);
    if (format.hadamard) numerics::hadamard(head);
  }
  struct Head;
  const std::span<float> head(thread_scratch<float, Head>(dim), size);
  uint8_t* codes = thread_scratch<uint8_t, Head>(dim);
  for (int64_t h = 0; h < shape.kv_heads; ++h) {
    const float* k = qkv + (args.heads + h) * dim;
    const float* v = qkv + (args.heads + shape.kv_heads + h) * dim;
    std::copy_n(k, dim, head.data());
    if (!args.k_norm.empty()) norm_head(head, args.k_norm, args.norm_eps);
    if (!format.pre_rope) rotate_head(head, cos_sin, args.rotary_dim);
    if (format.centered && !args.k_mean.empty()) {
      for (int64_t d = 0; d < dim; ++d) head[d] -= args.k_mean[h * dim + d];
    }
    if (format.hadamard) numerics::hadamard(head);
    store_kv(cache.layout(), format.bits, slot, head.data(), v, codes,
             cache.block(args.layer, page, h));
  }
}

}  // namespace

void rope_append_kv(const RopeAppendArgs& args) {
  auto& cache = static_cast<CpuKvCache&>(*args.cache);
  const auto& qkv = static_cast<const CpuTensor&>(*args.qkv);
  auto& q = static_cast<CpuTensor&>(*args.q);
  const Batch& batch = *args.batch;
  std::vector<PageRun> runs;
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const SequenceSlice& slice = batch.sequences[s];
    for (int64_t i = 0; i < slice.token_count;) {
      const int64_t room = kPageTokens - (slice.past + i) % kPageTokens;
      const int64_t count = std::min(room, slice.token_count - i);
      runs.push_back({static_cast<int64_t>(s), i, count});
      i += count;
    }
  }
  parallel_for(static_cast<int64_t>(runs.size()), [&](int64_t r) {
    const PageRun& run = runs[r];
    const SequenceSlice& slice = batch.sequences[run.sequence];
    for (int64_t i = run.first; i < run.first + run.count; ++i) {
      const int64_t token = slice.first_token + i, at = slice.past + i;
      const int64_t position = batch.positions[token];
      ATOM_CHECK((position + 1) * args.rotary_dim <= static_cast<int64_t>(args.cos_sin.size()),
                 "position past the end of the RoPE table");
      append_token(args, cache, qkv.row(token), position, slice.pages[at / kPageTokens],
                   at % kPageTokens, q.row(token));
    }
  });
}

}  // namespace atom::cpu
