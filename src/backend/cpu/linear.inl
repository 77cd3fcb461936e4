// The integer linear on packed panels: blocks of a few tokens times a few panels whose running sums
// stay in registers. Layouts: linear_weights.h.
#pragma once

#include <type_traits>

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd.h"

namespace atom::cpu {
namespace {

// The low or high codes of a step of two codes a byte, zero point added.
template <CodeStorage kStorage>
ATOM_ALWAYS_INLINE Codes low_codes(Codes both) {
  if constexpr (kStorage == CodeStorage::kE2M1) return e2m1_codes(low_nibbles(both));
  return low_nibbles(both);
}
template <CodeStorage kStorage>
ATOM_ALWAYS_INLINE Codes high_codes(Codes both) {
  if constexpr (kStorage == CodeStorage::kE2M1) return e2m1_codes(high_nibbles(both));
  return high_nibbles(both);
}

// sums[t][p] += the dot products over `steps` steps of 64 code bytes. Fetches the same steps of the
// panels that come next meanwhile: what the machine fetches ahead by itself ends with the 4 KiB
// that a panel often is.
template <CodeStorage kStorage, int kTokens, int kPanels, class Sum>
ATOM_ALWAYS_INLINE void add_products(Sum (&sums)[kTokens][kPanels], const uint8_t* codes,
                                     int64_t panel_bytes, const int8_t* acts, int64_t act_stride,
                                     int64_t steps) {
  constexpr bool kNibbles = kStorage != CodeStorage::kByte;
  constexpr int64_t kStepActs = kNibbles ? 8 : 4;
  if constexpr (kTokens * kPanels == 1) {
    // One token: four chains of sums, since one would wait for its own results.
    Sum more[3] = {start_sum<Sum>(0), start_sum<Sum>(0), start_sum<Sum>(0)};
    int64_t j = 0;
    for (; j + 2 <= steps; j += 2, codes += 128, acts += 2 * kStepActs) {
      prefetch(codes + panel_bytes);
      prefetch(codes + panel_bytes + 64);
      const Codes a = load_codes(codes), b = load_codes(codes + 64);
      if constexpr (kNibbles) {
        dot(sums[0][0], low_codes<kStorage>(a), acts);
        dot(more[0], high_codes<kStorage>(a), acts + 4);
        dot(more[1], low_codes<kStorage>(b), acts + 8);
        dot(more[2], high_codes<kStorage>(b), acts + 12);
      } else {
        dot(sums[0][0], a, acts);
        dot(more[0], b, acts + 4);
      }
    }
    if (j < steps) {
      const Codes a = load_codes(codes);
      if constexpr (kNibbles) {
        dot(sums[0][0], low_codes<kStorage>(a), acts);
        dot(more[0], high_codes<kStorage>(a), acts + 4);
      } else {
        dot(sums[0][0], a, acts);
      }
    }
    sums[0][0] = (sums[0][0] + more[0]) + (more[1] + more[2]);
    return;
  }
  for (int64_t j = 0; j < steps; ++j, codes += 64, acts += kStepActs) {
    Codes low[kPanels], high[kPanels];
    ATOM_PRAGMA_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      prefetch(codes + (p + kPanels) * panel_bytes);
      const Codes both = load_codes(codes + p * panel_bytes);
      if constexpr (kNibbles) {
        low[p] = low_codes<kStorage>(both);
        high[p] = high_codes<kStorage>(both);
      } else {
        low[p] = both;
      }
    }
    ATOM_PRAGMA_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      ATOM_PRAGMA_UNROLL
      for (int p = 0; p < kPanels; ++p) dot(sums[t][p], low[p], acts + t * act_stride);
      if constexpr (kNibbles) {
        ATOM_PRAGMA_UNROLL
        for (int p = 0; p < kPanels; ++p) dot(sums[t][p], high[p], acts + t * act_stride + 4);
      }
    }
  }
}

// result[t][p] (bias and what y holds already added as asked) goes to y.
ATOM_ALWAYS_INLINE void store_result(const LinearJob& job, int64_t panel, int64_t token,
                                     Floats result) {
  const int64_t row = panel * kPanelRows;
  const int64_t rows = job.rows - row < kPanelRows ? job.rows - row : kPanelRows;
  float* y = job.y + token * job.y_stride + row;
  if (job.bias != nullptr) result = result + load(job.bias + row);
  if (rows == kPanelRows) {
    store(y, job.accumulate ? load(y) + result : result);
  } else {
    store_first(y, job.accumulate ? load_first(y, rows) + result : result, rows);
  }
}

template <CodeStorage kStorage, bool kTwoLevel, int kTokens, int kPanels>
void linear_block(const LinearJob& job, int64_t panel, int64_t token) {
  constexpr bool kNibbles = kStorage != CodeStorage::kByte;
  using Sum = std::conditional_t<kNibbles, NibbleSum, ByteSum>;
  const int8_t* acts = job.acts + token * job.act_stride;
  const int32_t* act_sums = job.act_sums + token * job.groups;
  const float* act_scales = job.act_scales + token * job.act_groups;
  const uint8_t* codes = job.codes + panel * job.panel_bytes;
  const int64_t steps = job.group / (kNibbles ? 8 : 4);
  Floats result[kTokens][kPanels];
  Ints whole[kTokens][kPanels];  // two-level: the sum over all groups
  ATOM_PRAGMA_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    ATOM_PRAGMA_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      result[t][p] = splat(0.0f);
      whole[t][p] = splat(0);
    }
  }
  for (int64_t g = 0; g < job.groups; ++g) {
    Sum sums[kTokens][kPanels];
    ATOM_PRAGMA_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      // The zero point taken off: sum (c - z) a = sum c a - z sum a.
      const int32_t start = kTwoLevel ? 0 : -job.zero_point * act_sums[t * job.groups + g];
      ATOM_PRAGMA_UNROLL
      for (int p = 0; p < kPanels; ++p) sums[t][p] = start_sum<Sum>(start);
    }
    add_products<kStorage>(sums, codes + g * steps * 64, job.panel_bytes, acts + g * job.group,
                           job.act_stride, steps);
    ATOM_PRAGMA_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      const int64_t first = ((panel + p) * job.groups + g) * kPanelRows;
      if constexpr (kTwoLevel) {
        const Ints scale = load_u8(job.group_scales + first);
        const Ints zero = load_s8(job.group_zeros + first);
        ATOM_PRAGMA_UNROLL
        for (int t = 0; t < kTokens; ++t) {
          whole[t][p] =
              whole[t][p] + total(sums[t][p]) * scale + zero * splat(act_sums[t * job.groups + g]);
        }
      } else {
        const Floats scale = load_half(job.scales + first);
        ATOM_PRAGMA_UNROLL
        for (int t = 0; t < kTokens; ++t) {
          const float act = act_scales[t * job.act_groups + (job.act_groups == 1 ? 0 : g)];
          result[t][p] = fma(to_float(total(sums[t][p])), scale * splat(act), result[t][p]);
        }
      }
    }
  }
  if constexpr (kTwoLevel) {
    ATOM_PRAGMA_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      const Floats scale = load(job.row_scales + (panel + p) * kPanelRows);
      ATOM_PRAGMA_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        result[t][p] = to_float(whole[t][p]) * (scale * splat(act_scales[t * job.act_groups]));
      }
    }
  }
  if (job.outlier_codes != nullptr) {
    ByteSum sums[kTokens][kPanels];
    ATOM_PRAGMA_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      ATOM_PRAGMA_UNROLL
      for (int p = 0; p < kPanels; ++p) {
        sums[t][p] = start_sum<ByteSum>(-128 * job.act_outlier_sums[token + t]);
      }
    }
    add_products<CodeStorage::kByte>(sums, job.outlier_codes + panel * job.outlier_steps * 64,
                                     job.outlier_steps * 64, acts + job.act_outlier_offset,
                                     job.act_stride, job.outlier_steps);
    ATOM_PRAGMA_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      const Floats scale = load(job.outlier_scales + (panel + p) * kPanelRows);
      ATOM_PRAGMA_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        result[t][p] = fma(to_float(total(sums[t][p])),
                           scale * splat(job.act_outlier_scales[token + t]), result[t][p]);
      }
    }
  }
  ATOM_PRAGMA_UNROLL
  for (int p = 0; p < kPanels; ++p) {
    ATOM_PRAGMA_UNROLL
    for (int t = 0; t < kTokens; ++t) store_result(job, panel + p, token + t, result[t][p]);
  }
}

// Blocks of falling height over the tokens of one run of panels.
template <CodeStorage kStorage, bool kTwoLevel, int kPanels>
void linear_panels(const LinearJob& job, int64_t panel, int64_t token, int64_t token_end) {
  for (; token + kBlockTokens <= token_end; token += kBlockTokens) {
    linear_block<kStorage, kTwoLevel, kBlockTokens, kPanels>(job, panel, token);
  }
  if constexpr (kBlockTokens > 4) {
    for (; token + 4 <= token_end; token += 4) {
      linear_block<kStorage, kTwoLevel, 4, kPanels>(job, panel, token);
    }
  }
  if constexpr (kBlockTokens > 2) {
    for (; token + 2 <= token_end; token += 2) {
      linear_block<kStorage, kTwoLevel, 2, kPanels>(job, panel, token);
    }
  }
  for (; token < token_end; ++token) {
    linear_block<kStorage, kTwoLevel, 1, kPanels>(job, panel, token);
  }
}

template <CodeStorage kStorage, bool kTwoLevel>
void linear_kind(const LinearJob& job, int64_t panel, int64_t panel_end, int64_t token,
                 int64_t token_end) {
  if constexpr (kBlockPanels > 1) {
    // A single token streams through the weights, one panel after another.
    for (; token_end - token > 1 && panel + kBlockPanels <= panel_end; panel += kBlockPanels) {
      linear_panels<kStorage, kTwoLevel, kBlockPanels>(job, panel, token, token_end);
    }
  }
  for (; panel < panel_end; ++panel) {
    linear_panels<kStorage, kTwoLevel, 1>(job, panel, token, token_end);
  }
}

void linear(const LinearJob& job, int64_t panel, int64_t panel_end, int64_t token,
            int64_t token_end, uint8_t*) {
  const bool nibbles = job.storage == CodeStorage::kNibble;
  if (job.two_level) {
    if (nibbles) {
      linear_kind<CodeStorage::kNibble, true>(job, panel, panel_end, token, token_end);
    } else {
      linear_kind<CodeStorage::kByte, true>(job, panel, panel_end, token, token_end);
    }
  } else if (job.storage == CodeStorage::kE2M1) {
    linear_kind<CodeStorage::kE2M1, false>(job, panel, panel_end, token, token_end);
  } else if (nibbles) {
    linear_kind<CodeStorage::kNibble, false>(job, panel, panel_end, token, token_end);
  } else {
    linear_kind<CodeStorage::kByte, false>(job, panel, panel_end, token, token_end);
  }
}

}  // namespace
}  // namespace atom::cpu
