#include <algorithm>
#include <cmath>

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

struct Angles {
  const float* cos;
  const float* sin;
  int64_t half;
};

// Cosines and sines of one position, apart.
Angles split_angles(const RopeAppendArgs& args, int64_t position) {
  struct Table;
  const int64_t half = args.rotary_dim / 2;
  float* cos = thread_scratch<float, Table>(2 * half);
  float* sin = cos + half;
  const float* from = args.cos_sin.data() + position * args.rotary_dim;
  for (int64_t i = 0; i < half; ++i) {
    cos[i] = from[2 * i];
    sin[i] = from[2 * i + 1];
  }
  return {cos, sin, half};
}

HeadJob head_job(float* x, int64_t dim, std::span<const float> norm, float eps) {
  HeadJob job = {.x = x, .dim = dim};
  if (!norm.empty()) {
    job.norm_weight = norm.data();
    job.norm_factor = numerics::rms_factor({x, static_cast<size_t>(dim)}, eps);
  }
  return job;
}

void append_token(const Kernels& kernels, const RopeAppendArgs& args, CpuKvCache& cache,
                  const float* qkv, int64_t position, int64_t page, int64_t slot, float* q) {
  const KvCacheShape& shape = cache.shape();
  const KvFormat& format = shape.format;
  const int64_t dim = shape.head_dim;
  const Angles angles = split_angles(args, position);
  const float hadamard =
      format.hadamard ? static_cast<float>(1.0 / std::sqrt(static_cast<double>(dim))) : 0.0f;
  const auto finish = [&](HeadJob job, bool rotate) {
    if (rotate) {
      job.cos = angles.cos;
      job.sin = angles.sin;
      job.half = angles.half;
    }
    job.hadamard_factor = hadamard;
    kernels.prepare_head(job);
  };
  std::copy_n(qkv, args.heads * dim, q);
  for (int64_t h = 0; h < args.heads; ++h) {
    finish(head_job(q + h * dim, dim, args.q_norm, args.norm_eps), true);
  }
  struct Head;
  float* k = thread_scratch<float, Head>(dim);
  uint8_t* codes = thread_scratch<uint8_t, Head>(dim);
  for (int64_t h = 0; h < shape.kv_heads; ++h) {
    const float* v = qkv + (args.heads + shape.kv_heads + h) * dim;
    std::copy_n(qkv + (args.heads + h) * dim, dim, k);
    HeadJob job = head_job(k, dim, args.k_norm, args.norm_eps);
    if (format.centered && !args.k_mean.empty()) job.mean = args.k_mean.data() + h * dim;
    finish(job, !format.pre_rope);
    store_kv(kernels, cache.layout(), format.bits, slot, k, v, codes,
             cache.block(args.layer, page, h));
  }
}

}  // namespace

void rope_append_kv(const Kernels& kernels, const RopeAppendArgs& args) {
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
      append_token(kernels, args, cache, qkv.row(token), position, slice.pages[at / kPageTokens],
                   at % kPageTokens, q.row(token));
    }
  });
}

}  // namespace atom::cpu
