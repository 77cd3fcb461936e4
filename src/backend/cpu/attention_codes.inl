// Attention of a few queries on the codes of an integer page as they stand (kv_cache.h): a code is
// multiplied by a query's channel or a key's weight at once, and scales and minima meet the sums.
//
//   score[r, t]  = k_min[t] * sum_d q[r, d]  +  k_scale[t] * sum_d q[r, d] * k_code[t, d]
//   sums[r, d]  += sum_t w[r, t] * v_min[t]  +  sum_t (w[r, t] * v_scale[t]) * v_code[t, d]
#pragma once

#include "backend/cpu/rows.inl"

namespace atom::cpu {
namespace {

inline constexpr int64_t kPage = 16;  // kPageTokens, a vector of keys
// Rows up to which decoding the codes again for every kCodeRows of them costs less than floats that
// are written and read.
inline constexpr int64_t kFewRows = 2 * kCodeRows;

ATOM_ALWAYS_INLINE bool has_codes(const AttendJob& job, const uint8_t* block) {
  return block != nullptr && job.kind == KvKind::kInt;
}

// Calls put(i, codes) for the 4 * (1 or 2) codes of a step, codes as floats, i their offset within
// the step's reduction index.
template <bool kNibbles, class Put>
ATOM_ALWAYS_INLINE void each_code(Codes c, Put put) {
  if constexpr (kNibbles) {
    put(0, nibble_floats<0>(c));
    put(1, nibble_floats<8>(c));
    put(2, nibble_floats<16>(c));
    put(3, nibble_floats<24>(c));
    put(4, nibble_floats<4>(c));
    put(5, nibble_floats<12>(c));
    put(6, nibble_floats<20>(c));
    put(7, nibble_floats<28>(c));
  } else {
    put(0, to_float(code_bits<0, 8>(c)));
    put(1, to_float(code_bits<8, 8>(c)));
    put(2, to_float(code_bits<16, 8>(c)));
    put(3, to_float(code_bits<24, 8>(c)));
  }
}

template <bool kNibbles, int kRows>
void score_code_rows(const AttendJob& job, const uint8_t* block, const float* queries,
                     float* scores) {
  constexpr int64_t kStep = kNibbles ? 8 : 4;  // channels of a step
  const auto* planes = reinterpret_cast<const uint16_t*>(block + job.scales_offset);
  Floats sums[kRows][kCodeChains], totals[kRows];
  ATOM_PRAGMA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    totals[r] = splat(0.0f);
    ATOM_PRAGMA_UNROLL
    for (int c = 0; c < kCodeChains; ++c) sums[r][c] = splat(0.0f);
  }
  for (int64_t d = 0; d < job.dim; d += kStep, block += 64) {
    each_code<kNibbles>(load_codes(block), [&](int64_t i, Floats code) ATOM_LAMBDA_INLINE {
      ATOM_PRAGMA_UNROLL
      for (int r = 0; r < kRows; ++r) {
        Floats& sum = sums[r][i % kCodeChains];
        sum = fma(splat(queries[r * job.padded_dim + d + i]), code, sum);
      }
    });
  }
  for (int64_t d = 0; d < job.padded_dim; d += kLanes) {
    ATOM_PRAGMA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      totals[r] = totals[r] + load(queries + r * job.padded_dim + d);
    }
  }
  const Floats scale = load_half(planes), min = load_half(planes + kPage);
  ATOM_PRAGMA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    Floats sum = sums[r][0];
    ATOM_PRAGMA_UNROLL
    for (int c = 1; c < kCodeChains; ++c) sum = sum + sums[r][c];
    store(scores + r * kBlockKeys, fma(sum, scale, min * splat(sum_lanes(totals[r]))));
  }
}

template <bool kNibbles, int kRows>
void add_code_rows(const AttendJob& job, const uint8_t* block, int64_t count, const float* weights,
                   float* sums) {
  constexpr int64_t kStep = kNibbles ? 8 : 4;  // tokens of a step
  const auto* planes = reinterpret_cast<const uint16_t*>(block + job.scales_offset);
  // Tokens past the end have weight 0, and must not have infinite scales.
  const auto existing = [&](const uint16_t* plane) {
    return select_range(lane_index(), 0, static_cast<int32_t>(count), load_half(plane),
                        splat(0.0f));
  };
  const Floats scale = existing(planes + 2 * kPage), min = existing(planes + 3 * kPage);
  alignas(64) float factors[kRows][kPage];
  Floats offsets[kRows];
  ATOM_PRAGMA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const Floats weight = load(weights + r * kBlockKeys);
    store(factors[r], weight * scale);
    offsets[r] = splat(sum_lanes(weight * min));
  }
  block += job.plane_bytes;
  for (int64_t d = 0; d < job.padded_dim; d += kLanes) {
    Floats out[kRows];
    ATOM_PRAGMA_UNROLL
    for (int r = 0; r < kRows; ++r) out[r] = load(sums + r * job.padded_dim + d) + offsets[r];
    ATOM_PRAGMA_UNROLL
    for (int64_t t = 0; t < kPage; t += kStep, block += 64) {
      each_code<kNibbles>(load_codes(block), [&](int64_t i, Floats code) ATOM_LAMBDA_INLINE {
        ATOM_PRAGMA_UNROLL
        for (int r = 0; r < kRows; ++r) out[r] = fma(splat(factors[r][t + i]), code, out[r]);
      });
    }
    ATOM_PRAGMA_UNROLL
    for (int r = 0; r < kRows; ++r) store(sums + r * job.padded_dim + d, out[r]);
  }
}

// Calls body.operator()<n>(row) for runs of n <= kCodeRows rows.
template <class Body>
ATOM_ALWAYS_INLINE void for_code_rows(int64_t rows, Body body) {
  static_assert(kCodeRows == 4);
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) body.template operator()<4>(r);
  if (rows - r == 3) body.template operator()<3>(r);
  if (rows - r == 2) body.template operator()<2>(r);
  if (rows - r == 1) body.template operator()<1>(r);
}

// Scores of a page's 16 keys.
void score_codes(const AttendJob& job, const uint8_t* block, const float* queries, int64_t rows,
                 float* scores) {
  for_code_rows(rows, [&]<int kRows>(int64_t r) {
    const float* q = queries + r * job.padded_dim;
    float* to = scores + r * kBlockKeys;
    if (job.nibbles) {
      score_code_rows<true, kRows>(job, block, q, to);
    } else {
      score_code_rows<false, kRows>(job, block, q, to);
    }
  });
}

// job.sums += weights of a page's tokens, of which the first `count` exist, times their values.
void add_codes(const AttendJob& job, const uint8_t* block, int64_t count, const float* weights,
               int64_t rows) {
  for_code_rows(rows, [&]<int kRows>(int64_t r) {
    const float* w = weights + r * kBlockKeys;
    float* to = job.sums + r * job.padded_dim;
    if (job.nibbles) {
      add_code_rows<true, kRows>(job, block, count, w, to);
    } else {
      add_code_rows<false, kRows>(job, block, count, w, to);
    }
  });
}

}  // namespace
}  // namespace atom::cpu
