// Attention on the codes of integer pages as they stand (kv_cache.h): scales and minima meet the
// sums of codes, not each code. Many rows multiply codes that were expanded to floats
// (attention.inl), few rows the packed ones; both add up in the same order, so that a token's
// result is the same bits however many queries share a batch.
//
//   score[r, t]  = (sum_d q[r, d] * k_code[t, d]) * k_scale[t]  +  k_min[t] * sum_d q[r, d]
//   sums[r, d]  += sum_t w[r, t] * v_min[t]  +  sum_t (w[r, t] * v_scale[t]) * v_code[t, d]
#pragma once

#include "backend/cpu/rows.inl"

namespace atom::cpu {
namespace {

inline constexpr int64_t kPage = 16;  // kPageTokens, a vector of keys
// Rows up to which decoding the codes again for every kCodeRows of them costs less than floats that
// are written and read.
inline constexpr int64_t kFewRows = 2 * kCodeRows;

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

// The sums over channels of kPages pages: that many times kRows chains of sums, since one would
// wait for its own results.
template <bool kNibbles, int kRows, int kPages>
void score_code_rows(const AttendJob& job, const uint8_t* const* blocks, const float* queries,
                     float* scores) {
  constexpr int64_t kStep = kNibbles ? 8 : 4;  // channels of a step
  Floats sums[kRows][kPages];
  ATOM_PRAGMA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    ATOM_PRAGMA_UNROLL
    for (int p = 0; p < kPages; ++p) sums[r][p] = splat(0.0f);
  }
  for (int64_t d = 0; d < job.dim; d += kStep) {
    ATOM_PRAGMA_UNROLL
    for (int p = 0; p < kPages; ++p) {
      const Codes codes = load_codes(blocks[p] + d / kStep * 64);
      each_code<kNibbles>(codes, [&](int64_t i, Floats code) ATOM_LAMBDA_INLINE {
        ATOM_PRAGMA_UNROLL
        for (int r = 0; r < kRows; ++r) {
          sums[r][p] = fma(splat(queries[r * job.padded_dim + d + i]), code, sums[r][p]);
        }
      });
    }
  }
  ATOM_PRAGMA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    ATOM_PRAGMA_UNROLL
    for (int p = 0; p < kPages; ++p) store(scores + r * kBlockKeys + p * kPage, sums[r][p]);
  }
}

template <bool kNibbles, int kRows>
void add_code_rows(const AttendJob& job, const uint8_t* const* blocks, int pages,
                   const float* factors, float* sums) {
  constexpr int64_t kStep = kNibbles ? 8 : 4;  // tokens of a step
  for (int64_t d = 0; d < job.padded_dim; d += kLanes) {
    Floats out[kRows];
    ATOM_PRAGMA_UNROLL
    for (int r = 0; r < kRows; ++r) out[r] = load(sums + r * job.padded_dim + d);
    for (int p = 0; p < pages; ++p) {
      const uint8_t* codes = blocks[p] + job.plane_bytes + d / kLanes * (kPage / kStep * 64);
      const float* own = factors + p * kPage;
      ATOM_PRAGMA_UNROLL
      for (int64_t t = 0; t < kPage; t += kStep, codes += 64) {
        each_code<kNibbles>(load_codes(codes), [&](int64_t i, Floats code) ATOM_LAMBDA_INLINE {
          ATOM_PRAGMA_UNROLL
          for (int r = 0; r < kRows; ++r) {
            out[r] = fma(splat(own[r * kBlockKeys + t + i]), code, out[r]);
          }
        });
      }
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

// scores [rows, pages * 16] = queries times the codes of the pages' keys; pages: 1 or kCodePages.
void score_codes(const AttendJob& job, const uint8_t* const* blocks, int pages,
                 const float* queries, int64_t rows, float* scores) {
  for_code_rows(rows, [&]<int kRows>(int64_t r) {
    const float* q = queries + r * job.padded_dim;
    float* to = scores + r * kBlockKeys;
    if (job.nibbles && pages == kCodePages) {
      score_code_rows<true, kRows, kCodePages>(job, blocks, q, to);
    } else if (job.nibbles) {
      score_code_rows<true, kRows, 1>(job, blocks, q, to);
    } else if (pages == kCodePages) {
      score_code_rows<false, kRows, kCodePages>(job, blocks, q, to);
    } else {
      score_code_rows<false, kRows, 1>(job, blocks, q, to);
    }
  });
}

// Sums of a page's key codes become scores; query_sums: of each row's channels.
void scale_scores(const AttendJob& job, const uint8_t* block, const float* query_sums, int64_t rows,
                  float* scores) {
  const auto* planes = reinterpret_cast<const uint16_t*>(block + job.scales_offset);
  const Floats scale = load_half(planes), min = load_half(planes + kPage);
  for (int64_t r = 0; r < rows; ++r, scores += kBlockKeys) {
    store(scores, fma(load(scores), scale, min * splat(query_sums[r])));
  }
}

// A row's weights of a page's tokens, of which the first `count` exist, become factors of their
// codes. Returns what the minima add to every channel.
ATOM_ALWAYS_INLINE float scale_weights(const AttendJob& job, const uint8_t* block, int64_t count,
                                       float* weights) {
  const auto* planes = reinterpret_cast<const uint16_t*>(block + job.scales_offset);
  // Tokens past the end have weight 0, and must not have infinite scales.
  const auto existing = [&](const uint16_t* plane) {
    return select_range(lane_index(), 0, static_cast<int32_t>(count), load_half(plane),
                        splat(0.0f));
  };
  const Floats weight = load(weights);
  store(weights, weight * existing(planes + 2 * kPage));
  return sum_lanes(weight * existing(planes + 3 * kPage));
}

// job.sums += factors [rows, pages * 16] times the codes of the pages' values.
void add_codes(const AttendJob& job, const uint8_t* const* blocks, int pages, const float* factors,
               int64_t rows) {
  for_code_rows(rows, [&]<int kRows>(int64_t r) {
    const float* own = factors + r * kBlockKeys;
    float* to = job.sums + r * job.padded_dim;
    if (job.nibbles) {
      add_code_rows<true, kRows>(job, blocks, pages, own, to);
    } else {
      add_code_rows<false, kRows>(job, blocks, pages, own, to);
    }
  });
}

}  // namespace
}  // namespace atom::cpu
