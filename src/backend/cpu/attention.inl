// Attention of a tile of queries over blocks of 64 keys with a running softmax: keys and values are
// expanded to floats once a block, and both products run as register blocks of fused multiply-adds.
//
//   keys     [DH][64]      a channel a row, so that scores of 16 keys are one vector
//   values   [64][P]       P = DH rounded up to 16
//   queries  [rows][P]     scaled
//   scores   [rows][64]    then the softmax's weights
#pragma once

#include "backend/cpu/rows.inl"

namespace atom::cpu {
namespace {

inline constexpr int64_t kPage = 16;  // kPageTokens, a vector of keys

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
  int64_t key = 0;    // of lane 0
  int64_t count = 0;  // lanes that exist
};

// Calls put(i, codes) for the 4 * (1 or 2) codes of a step, codes as floats, i their offset within
// the step's reduction index.
template <bool kNibbles, class Put>
ATOM_ALWAYS_INLINE void each_code(Codes c, Put put) {
  if constexpr (kNibbles) {
    put(0, to_float(code_bits<0, 4>(c)));
    put(1, to_float(code_bits<8, 4>(c)));
    put(2, to_float(code_bits<16, 4>(c)));
    put(3, to_float(code_bits<24, 4>(c)));
    put(4, to_float(code_bits<4, 4>(c)));
    put(5, to_float(code_bits<12, 4>(c)));
    put(6, to_float(code_bits<20, 4>(c)));
    put(7, to_float(code_bits<28, 4>(c)));
  } else {
    put(0, to_float(code_bits<0, 8>(c)));
    put(1, to_float(code_bits<8, 8>(c)));
    put(2, to_float(code_bits<16, 8>(c)));
    put(3, to_float(code_bits<24, 8>(c)));
  }
}

template <bool kNibbles>
void expand_codes(const AttendJob& job, const uint8_t* block, float* keys, float* values) {
  constexpr int64_t kStep = kNibbles ? 8 : 4;  // reduction indices of a step
  const auto* planes = reinterpret_cast<const uint16_t*>(block + job.scales_offset);
  const Floats k_scale = load_half(planes), k_min = load_half(planes + kPage);
  for (int64_t d = 0; d < job.dim; d += kStep, block += 64) {
    each_code<kNibbles>(load_codes(block), [&](int64_t i, Floats code) {
      if (d + i < job.dim) store(keys + (d + i) * kBlockKeys, fma(code, k_scale, k_min));
    });
  }
  block = reinterpret_cast<const uint8_t*>(planes) - job.scales_offset + job.plane_bytes;
  alignas(64) float v_scale[kPage], v_min[kPage];
  store(v_scale, load_half(planes + 2 * kPage));
  store(v_min, load_half(planes + 3 * kPage));
  for (int64_t d = 0; d < job.padded_dim; d += kLanes) {
    for (int64_t t = 0; t < kPage; t += kStep, block += 64) {
      each_code<kNibbles>(load_codes(block), [&](int64_t i, Floats code) {
        store(values + (t + i) * job.padded_dim + d,
              fma(code, splat(v_scale[t + i]), splat(v_min[t + i])));
      });
    }
  }
}

void expand_floats(const AttendJob& job, const uint8_t* block, float* keys, float* values) {
  const bool half = job.kind == KvKind::kF16;
  const auto read = [&](const uint8_t* plane, int64_t i, int64_t n) {
    if (!half) return load_first(reinterpret_cast<const float*>(plane) + i, n);
    return load_half_first(reinterpret_cast<const uint16_t*>(plane) + i, n);
  };
  for (int64_t d = 0; d < job.dim; ++d) {
    store(keys + d * kBlockKeys, read(block, d * kPage, kLanes));
  }
  const uint8_t* plane = block + job.plane_bytes;
  for (int64_t t = 0; t < kPage; ++t) {
    for_blocks(job.dim, [&](int64_t d, int64_t n) {
      store(values + t * job.padded_dim + d, read(plane, t * job.dim + d, n));
    });
  }
}

void expand_prefix(const AttendJob& job, const KeyRun& run, float* keys, float* values) {
  for (int64_t t = 0; t < run.count; ++t) {
    const float* k = job.prefix_k + (run.key + t) * job.prefix_stride;
    const float* v = job.prefix_v + (run.key + t) * job.prefix_stride;
    for (int64_t d = 0; d < job.dim; ++d) {
      keys[d * kBlockKeys + t] = k[d];
      values[t * job.padded_dim + d] = v[d];
    }
  }
}

// RoPE of 16 keys that were stored without.
void rotate_keys(const AttendJob& job, const KeyRun& run, float* keys) {
  const int64_t half = job.rotary_dim / 2;
  const float* angles = job.cos_sin + run.key * job.rotary_dim;
  const Ints rows = lane_index() * splat(static_cast<int32_t>(job.rotary_dim));
  for (int64_t d = 0; d < half; ++d) {
    const Floats cos = gather_first(angles + 2 * d, rows, run.count);
    const Floats sin = gather_first(angles + 2 * d + 1, rows, run.count);
    float* first = keys + d * kBlockKeys;
    float* second = first + half * kBlockKeys;
    const Floats a = load(first), b = load(second);
    store(first, fma(a, cos, negate(b * sin)));
    store(second, fma(b, cos, a * sin));
  }
}

// Fills 16 lanes of keys and 16 rows of values.
void expand_run(const AttendJob& job, const KeyRun& run, float* keys, float* values) {
  if (run.key < job.prefix) {
    expand_prefix(job, run, keys, values);
  } else {
    const uint8_t* block = job.blocks[(run.key - job.prefix) / kPage];
    if (job.kind != KvKind::kInt) {
      expand_floats(job, block, keys, values);
    } else if (job.nibbles) {
      expand_codes<true>(job, block, keys, values);
    } else {
      expand_codes<false>(job, block, keys, values);
    }
  }
  if (job.cos_sin != nullptr) rotate_keys(job, run, keys);
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
    return {key, left < kPage ? left : kPage};
  }
  const int64_t start = key - (key - job.prefix) % kPage;
  const int64_t left = job.key_end - start;
  return {start, left < kPage ? left : kPage};
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

void attend(const AttendJob& job) {
  const int64_t rows = job.tokens * job.repeat, padded = job.padded_dim;
  float* keys = job.scratch;
  float* values = keys + kBlockKeys * padded;
  float* queries = values + kBlockKeys * padded;
  float* scores = queries + rows * padded;
  for (int64_t r = 0; r < rows; ++r) {
    const float* q = job.q + r / job.repeat * job.q_stride + r % job.repeat * job.dim;
    for_blocks(job.dim, [&](int64_t d, int64_t n) {
      store_first(queries + r * padded + d, load_first(q + d, n) * splat(job.scale), n);
    });
    job.maxima[r] = -__builtin_inff();
    job.totals[r] = 0.0f;
    for (int64_t d = 0; d < padded; d += kLanes) store(job.sums + r * padded + d, splat(0.0f));
  }
  for (int64_t key = job.key; key < job.key_end;) {
    KeyRun runs[kBlockKeys / kPage];
    int count = 0;
    for (; count < kBlockKeys / kPage && key < job.key_end; ++count) {
      runs[count] = run_at(job, key);
      expand_run(job, runs[count], keys + count * kPage, values + count * kPage * padded);
      key = runs[count].key + runs[count].count;
    }
    const int64_t lanes = count * kPage;
    product(queries, padded, keys, kBlockKeys, job.dim, false, scores, kBlockKeys, rows, lanes);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t own = job.query_key + r / job.repeat;
      const int64_t seen = job.window == 0 ? 0 : own - job.window + 1;
      const int64_t first = seen > job.key ? seen : job.key;
      const float shrink = soften(runs, count, first, own + 1, scores + r * kBlockKeys,
                                  job.maxima[r], job.totals[r]);
      if (shrink == 1.0f) continue;
      float* sums = job.sums + r * padded;
      for (int64_t d = 0; d < padded; d += kLanes) {
        store(sums + d, load(sums + d) * splat(shrink));
      }
    }
    product(scores, kBlockKeys, values, padded, lanes, true, job.sums, padded, rows, padded);
  }
}

}  // namespace
}  // namespace atom::cpu
