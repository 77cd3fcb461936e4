// Attention of a tile of queries over blocks of 64 keys with a running softmax.
//
//   queries  [rows][P]     scaled; P = DH rounded up to 16, zeros past DH
//   scores   [rows][64]    then the softmax's weights
//
// For many rows, keys and values are expanded to floats once a block, and both products run as
// register blocks of fused multiply-adds:
//
//   keys     [DH][64]      a channel a row, so that scores of 16 keys are one vector
//   values   [64][P]
//
// A few rows meet the codes of a page as they are (attention_codes.inl).
#pragma once

#include "backend/cpu/attention_codes.inl"

namespace atom::cpu {
namespace {

// c[r][v] (+)= sum over k of a[r][k] * b[k][v] for a block of rows and vectors.
template <int kRows, int kVectors>
ATOM_ALWAYS_INLINE void product_block(const float* a, int64_t a_stride, const float* b,
                                      int64_t b_stride, int64_t depth, bool accumulate, float* c,
                                      int64_t c_stride) {
  Floats sums[kRows][kVectors];
  ATOM_PRAGMA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    ATOM_PRAGMA_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = accumulate ? load(c + r * c_stride + v * kLanes) : splat(0.0f);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Floats row[kVectors];
    ATOM_PRAGMA_UNROLL
    for (int v = 0; v < kVectors; ++v) row[v] = load(b + k * b_stride + v * kLanes);
    ATOM_PRAGMA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Floats factor = splat(a[r * a_stride + k]);
      ATOM_PRAGMA_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[r][v] = fma(factor, row[v], sums[r][v]);
    }
  }
  ATOM_PRAGMA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    ATOM_PRAGMA_UNROLL
    for (int v = 0; v < kVectors; ++v) store(c + r * c_stride + v * kLanes, sums[r][v]);
  }
}

template <int kVectors>
void product_rows(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t depth,
                  bool accumulate, float* c, int64_t c_stride, int64_t rows) {
  int64_t r = 0;
  for (; r + kProductRows <= rows; r += kProductRows) {
    product_block<kProductRows, kVectors>(a + r * a_stride, a_stride, b, b_stride, depth,
                                          accumulate, c + r * c_stride, c_stride);
  }
  constexpr int kHalf = kProductRows > 1 ? kProductRows / 2 : 1;
  for (; r + kHalf <= rows; r += kHalf) {
    product_block<kHalf, kVectors>(a + r * a_stride, a_stride, b, b_stride, depth, accumulate,
                                   c + r * c_stride, c_stride);
  }
  for (; r < rows; ++r) {
    product_block<1, kVectors>(a + r * a_stride, a_stride, b, b_stride, depth, accumulate,
                               c + r * c_stride, c_stride);
  }
}

// c [rows, cols] (+)= a [rows, depth] * b [depth, cols]; cols a multiple of 16.
void product(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t depth,
             bool accumulate, float* c, int64_t c_stride, int64_t rows, int64_t cols) {
  int64_t col = 0;
  for (; col + kProductVectors * kLanes <= cols; col += kProductVectors * kLanes) {
    product_rows<kProductVectors>(a, a_stride, b + col, b_stride, depth, accumulate, c + col,
                                  c_stride, rows);
  }
  for (; col < cols; col += kLanes) {
    product_rows<1>(a, a_stride, b + col, b_stride, depth, accumulate, c + col, c_stride, rows);
  }
}

// A run of keys that stands together: some of the prefix, or a page.
struct KeyRun {
  int64_t key = 0;                 // of lane 0
  int64_t count = 0;               // lanes that exist
  const uint8_t* block = nullptr;  // null: in the prefix
};

// Whether the scores are sums of codes that scale_scores() finishes; keys that are rotated as they
// are read need their scales before.
ATOM_ALWAYS_INLINE bool scores_codes(const AttendJob& job) {
  return job.kind == KvKind::kInt && job.page_angles == nullptr;
}

template <bool kNibbles>
void expand_key_codes(const AttendJob& job, const uint8_t* block, float* keys) {
  constexpr int64_t kStep = kNibbles ? 8 : 4;  // channels of a step
  const auto* planes = reinterpret_cast<const uint16_t*>(block + job.scales_offset);
  const bool codes_only = scores_codes(job);
  const Floats scale = load_half(planes), min = load_half(planes + kPage);
  for (int64_t d = 0; d < job.dim; d += kStep, block += 64) {
    each_code<kNibbles>(load_codes(block), [&](int64_t i, Floats code) {
      if (d + i >= job.dim) return;
      store(keys + (d + i) * kBlockKeys, codes_only ? code : fma(code, scale, min));
    });
  }
}

template <bool kNibbles>
void expand_value_codes(const AttendJob& job, const uint8_t* block, float* values) {
  constexpr int64_t kStep = kNibbles ? 8 : 4;  // tokens of a step
  block += job.plane_bytes;
  for (int64_t d = 0; d < job.padded_dim; d += kLanes) {
    for (int64_t t = 0; t < kPage; t += kStep, block += 64) {
      each_code<kNibbles>(load_codes(block), [&](int64_t i, Floats code) {
        store(values + (t + i) * job.padded_dim + d, code);
      });
    }
  }
}

// Up to 16 elements of an F32 or F16 plane.
ATOM_ALWAYS_INLINE Floats load_plane(const AttendJob& job, const uint8_t* plane, int64_t i,
                                     int64_t n) {
  if (job.kind == KvKind::kF32) return load_first(reinterpret_cast<const float*>(plane) + i, n);
  return load_half_first(reinterpret_cast<const uint16_t*>(plane) + i, n);
}

// RoPE of 16 keys that were stored without.
void rotate_keys(const AttendJob& job, const KeyRun& run, float* keys) {
  const int64_t half = job.rotary_dim / 2;
  const auto rotate = [&](int64_t d, Floats cos, Floats sin) {
    float* first = keys + d * kBlockKeys;
    float* second = first + half * kBlockKeys;
    const Floats a = load(first), b = load(second);
    store(first, fma(a, cos, negate(b * sin)));
    store(second, fma(b, cos, a * sin));
  };
  if (run.block == nullptr) {
    const float* angles = job.prefix_angles + run.key * job.rotary_dim;
    const Ints rows = lane_index() * splat(static_cast<int32_t>(job.rotary_dim));
    for (int64_t d = 0; d < half; ++d) {
      rotate(d, gather_first(angles + 2 * d, rows, run.count),
             gather_first(angles + 2 * d + 1, rows, run.count));
    }
    return;
  }
  const float* angles = job.page_angles + (run.key - job.prefix) * job.rotary_dim;
  for (int64_t d = 0; d < half; ++d, angles += 2 * kPage) {
    rotate(d, load(angles), load(angles + kPage));
  }
}

// Fills 16 lanes of keys.
void expand_keys(const AttendJob& job, const KeyRun& run, float* keys) {
  if (run.block == nullptr) {
    for (int64_t t = 0; t < run.count; ++t) {
      const float* k = job.prefix_k + (run.key + t) * job.prefix_stride;
      for (int64_t d = 0; d < job.dim; ++d) keys[d * kBlockKeys + t] = k[d];
    }
  } else if (job.kind != KvKind::kInt) {
    for (int64_t d = 0; d < job.dim; ++d) {
      store(keys + d * kBlockKeys, load_plane(job, run.block, d * kPage, kLanes));
    }
  } else if (job.nibbles) {
    expand_key_codes<true>(job, run.block, keys);
  } else {
    expand_key_codes<false>(job, run.block, keys);
  }
  if (job.page_angles != nullptr) rotate_keys(job, run, keys);
}

// Fills 16 rows of values.
void expand_values(const AttendJob& job, const KeyRun& run, float* values) {
  if (run.block == nullptr) {
    for (int64_t t = 0; t < run.count; ++t) {
      const float* v = job.prefix_v + (run.key + t) * job.prefix_stride;
      for (int64_t d = 0; d < job.dim; ++d) values[t * job.padded_dim + d] = v[d];
    }
  } else if (job.kind != KvKind::kInt) {
    const uint8_t* plane = run.block + job.plane_bytes;
    for (int64_t t = 0; t < kPage; ++t) {
      for_blocks(job.dim, [&](int64_t d, int64_t n) {
        store(values + t * job.padded_dim + d, load_plane(job, plane, t * job.dim + d, n));
      });
    }
  } else if (job.nibbles) {
    expand_value_codes<true>(job, run.block, values);
  } else {
    expand_value_codes<false>(job, run.block, values);
  }
  // What a page holds past the sequence's end has weight 0, and must not be infinite.
  for (int64_t t = run.count; t < kPage; ++t) {
    for (int64_t d = 0; d < job.padded_dim; d += kLanes) {
      store(values + t * job.padded_dim + d, splat(0.0f));
    }
  }
}

// The runs after `key`: a page (from its first token on) or up to 16 prefix tokens.
ATOM_ALWAYS_INLINE KeyRun run_at(const AttendJob& job, int64_t key) {
  if (key < job.prefix) {
    const int64_t left = job.prefix - key;
    return {key, left < kPage ? left : kPage, nullptr};
  }
  const int64_t page = (key - job.prefix) / kPage, start = job.prefix + page * kPage;
  const int64_t left = job.key_end - start;
  return {start, left < kPage ? left : kPage, job.blocks[page]};
}

// Scores of one row to weights; what lies outside its keys gets weight 0. Returns the factor that
// earlier sums shrink by.
ATOM_ALWAYS_INLINE float soften(const KeyRun (&runs)[kBlockKeys / kPage], int count, int64_t first,
                                int64_t last, float* scores, float& maximum, float& total) {
  constexpr float kNone = -__builtin_inff();
  const Ints lanes = lane_index();
  Floats best = splat(kNone);
  const auto masked = [&](int i, Floats x, float outside) {
    const int64_t begin = first - runs[i].key, end = last - runs[i].key;
    const int64_t limit = runs[i].count;
    return select_range(lanes,
                        static_cast<int32_t>(begin < 0       ? 0
                                             : begin < kPage ? begin
                                                             : kPage),
                        static_cast<int32_t>(end < 0       ? 0
                                             : end < limit ? end
                                                           : limit),
                        x, splat(outside));
  };
  for (int i = 0; i < count; ++i) best = max(best, masked(i, load(scores + i * kPage), kNone));
  const float block_best = max_lane(best);
  if (block_best == kNone) {
    for (int i = 0; i < count; ++i) store(scores + i * kPage, splat(0.0f));
    return 1.0f;
  }
  float shrink = 1.0f;
  if (block_best > maximum) {
    shrink = maximum == kNone ? 0.0f : max_lane(exponential(splat(maximum - block_best)));
    maximum = block_best;
  }
  Floats sum = splat(0.0f);
  for (int i = 0; i < count; ++i) {
    const Floats weight = masked(i, exponential(load(scores + i * kPage) - splat(maximum)), 0.0f);
    sum = sum + weight;
    store(scores + i * kPage, weight);
  }
  total = total * shrink + sum_lanes(sum);
  return shrink;
}

// Buffers of one call.
struct AttendScratch {
  float* keys;
  float* values;
  float* queries;
  float* scores;
  float* query_sums;  // [rows]
};

// How many of the runs from i on are pages; at most `most`.
ATOM_ALWAYS_INLINE int pages_from(const KeyRun* runs, int i, int count, int most) {
  int pages = 0;
  while (pages < most && i + pages < count && runs[i + pages].block != nullptr) ++pages;
  return pages;
}

// scores [rows, count * 16] = queries * keys of a block.
void score_block(const AttendJob& job, const AttendScratch& scratch, const KeyRun* runs,
                 const uint8_t* const* blocks, int count, int64_t rows) {
  const bool few = rows <= kFewRows && scores_codes(job);
  for (int i = 0; i < count;) {
    float* keys = scratch.keys + i * kPage;
    float* scores = scratch.scores + i * kPage;
    if (few && runs[i].block != nullptr) {
      const int pages = pages_from(runs, i, count, kCodePages) == kCodePages ? kCodePages : 1;
      score_codes(job, blocks + i, pages, scratch.queries, rows, scores);
      i += pages;
      continue;
    }
    expand_keys(job, runs[i], keys);
    if (few) {
      product(scratch.queries, job.padded_dim, keys, kBlockKeys, job.dim, false, scores, kBlockKeys,
              rows, kPage);
    }
    ++i;
  }
  if (!few) {
    product(scratch.queries, job.padded_dim, scratch.keys, kBlockKeys, job.dim, false,
            scratch.scores, kBlockKeys, rows, count * kPage);
  }
  if (!scores_codes(job)) return;
  for (int i = 0; i < count; ++i) {
    if (runs[i].block == nullptr) continue;
    scale_scores(job, runs[i].block, scratch.query_sums, rows, scratch.scores + i * kPage);
  }
}

// job.sums += weights [rows, count * 16] * values of a block.
void add_block(const AttendJob& job, const AttendScratch& scratch, const KeyRun* runs,
               const uint8_t* const* blocks, int count, int64_t rows) {
  const bool codes = job.kind == KvKind::kInt, few = codes && rows <= kFewRows;
  const int64_t padded = job.padded_dim;
  for (int64_t r = 0; codes && r < rows; ++r) {
    float offset = 0.0f;
    for (int i = 0; i < count; ++i) {
      if (runs[i].block == nullptr) continue;
      offset += scale_weights(job, runs[i].block, runs[i].count,
                              scratch.scores + r * kBlockKeys + i * kPage);
    }
    float* sums = job.sums + r * padded;
    for (int64_t d = 0; d < padded; d += kLanes) store(sums + d, load(sums + d) + splat(offset));
  }
  for (int i = 0; i < count;) {
    float* values = scratch.values + i * kPage * padded;
    const float* weights = scratch.scores + i * kPage;
    if (few && runs[i].block != nullptr) {
      const int pages = pages_from(runs, i, count, count);
      add_codes(job, blocks + i, pages, weights, rows);
      i += pages;
      continue;
    }
    expand_values(job, runs[i], values);
    if (few) {
      product(weights, kBlockKeys, values, padded, kPage, true, job.sums, padded, rows, padded);
    }
    ++i;
  }
  if (few) return;
  product(scratch.scores, kBlockKeys, scratch.values, padded, count * kPage, true, job.sums, padded,
          rows, padded);
}

void attend(const AttendJob& job) {
  const int64_t rows = job.tokens * job.repeat, padded = job.padded_dim;
  AttendScratch scratch;
  scratch.keys = job.scratch;
  scratch.values = scratch.keys + kBlockKeys * padded;
  scratch.queries = scratch.values + kBlockKeys * padded;
  scratch.scores = scratch.queries + rows * padded;
  scratch.query_sums = scratch.scores + rows * kBlockKeys;
  for (int64_t r = 0; r < rows; ++r) {
    const float* q = job.q + r / job.repeat * job.q_stride + r % job.repeat * job.dim;
    for_blocks(job.dim, [&](int64_t d, int64_t n) {
      store(scratch.queries + r * padded + d, load_first(q + d, n) * splat(job.scale));
    });
    Floats sum = splat(0.0f);
    for (int64_t d = 0; d < padded; d += kLanes) {
      sum = sum + load(scratch.queries + r * padded + d);
    }
    scratch.query_sums[r] = sum_lanes(sum);
    job.maxima[r] = -__builtin_inff();
    job.totals[r] = 0.0f;
    for (int64_t d = 0; d < padded; d += kLanes) store(job.sums + r * padded + d, splat(0.0f));
  }
  for (int64_t key = job.key; key < job.key_end;) {
    KeyRun runs[kBlockKeys / kPage];
    const uint8_t* blocks[kBlockKeys / kPage];
    int count = 0;
    for (; count < kBlockKeys / kPage && key < job.key_end; ++count) {
      runs[count] = run_at(job, key);
      blocks[count] = runs[count].block;
      key = runs[count].key + runs[count].count;
    }
    score_block(job, scratch, runs, blocks, count, rows);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t own = job.query_key + r / job.repeat;
      const int64_t seen = job.window == 0 ? 0 : own - job.window + 1;
      const int64_t first = seen > job.key ? seen : job.key;
      const float shrink = soften(runs, count, first, own + 1, scratch.scores + r * kBlockKeys,
                                  job.maxima[r], job.totals[r]);
      if (shrink == 1.0f) continue;
      float* sums = job.sums + r * padded;
      for (int64_t d = 0; d < padded; d += kLanes) {
        store(sums + d, load(sums + d) * splat(shrink));
      }
    }
    add_block(job, scratch, runs, blocks, count, rows);
  }
}

}  // namespace
}  // namespace atom::cpu
