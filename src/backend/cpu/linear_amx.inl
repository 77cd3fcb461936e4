// The integer linear of many tokens on AMX: two panels are expanded to bytes once, then multiplied
// with tiles of 16 tokens, two by two.
//
//     tiles 4, 5   16 tokens x 64 activation bytes, straight from the activations
//     tiles 6, 7   16 code steps = 64 channels x 16 rows, in the order of byte panels
//     tiles 0..3   16 tokens x 16 rows of int32 sums
//
// Channels past the end of a group are zero codes, so that activations read there do not count.
// Groups that are no multiple of 64 channels use tiles of 32.
#pragma once

#include "backend/cpu/linear.inl"

namespace atom::cpu {
namespace {

inline constexpr int64_t kTileTokens = 16;

// A run of channels under one scale: a group, the whole two-level body, or the outliers.
struct Segment {
  const uint8_t* tiles = nullptr;  // [tile][panel]
  int64_t parts = 0;               // act runs that start at act + i * part_acts
  int64_t part_acts = 0;
  int64_t part_tiles = 0;
  const int8_t* acts = nullptr;
};

struct TilePlan {
  int64_t channels;     // of a tile: 64 or 32
  int64_t bytes;        // of a tile of codes
  int64_t group_tiles;  // tiles of a group
  int64_t body_tiles, outlier_tiles;

  explicit TilePlan(const LinearJob& job) {
    channels = job.group % 64 == 0 ? 64 : 32;
    bytes = channels / 4 * kStepBytes;
    group_tiles = (job.group + channels - 1) / channels;
    body_tiles = group_tiles * job.groups;
    outlier_tiles =
        job.outlier_codes == nullptr ? 0 : (job.outlier_steps * 4 + channels - 1) / channels;
  }
};

int64_t amx_scratch_bytes(const LinearJob& job) {
  const TilePlan plan(job);
  return (plan.body_tiles + plan.outlier_tiles) * plan.bytes;
}

void configure_tiles(const TilePlan& plan) {
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int i = 0; i < 8; ++i) {
    const bool acts = i == 4 || i == 5, codes = i >= 6;
    config.row_bytes[i] = static_cast<uint16_t>(acts ? plan.channels : 64);
    config.rows[i] = static_cast<uint8_t>(codes ? plan.channels / 4 : 16);
  }
  _tile_loadconfig(&config);
}

// Unpacks a panel: tile i of it goes to to + i * stride.
void expand_panel(const LinearJob& job, const TilePlan& plan, int64_t panel, uint8_t* to,
                  int64_t stride) {
  const uint8_t* codes = job.codes + panel * job.panel_bytes;
  const int64_t tile_steps = plan.channels / 4;
  const Codes zero = {_mm512_setzero_si512()};
  for (int64_t g = 0; g < job.groups; ++g, to += plan.group_tiles * stride) {
    const int64_t first = (panel * job.groups + g) * kPanelRows;
    ByteScales scales = {};
    if (job.two_level) scales = load_byte_scales(job.group_scales + first, job.group_zeros + first);
    const auto put = [&](int64_t step, Codes c) {
      store_codes(to + step / tile_steps * stride + step % tile_steps * kStepBytes, c);
    };
    const int64_t steps = job.group / 4;
    for (int64_t j = 0; j < steps; codes += kStepBytes) {
      const Codes packed = load_codes(codes);
      if (job.storage == CodeStorage::kByte) {
        // Two-level codes that are kept in bytes are nibbles all the same.
        put(j++, job.two_level ? scale_nibbles(packed, scales) : packed);
        continue;
      }
      if (job.storage == CodeStorage::kE2M1) {
        put(j++, low_codes<CodeStorage::kE2M1>(packed));
        put(j++, high_codes<CodeStorage::kE2M1>(packed));
        continue;
      }
      const Codes low = low_nibbles(packed), high = high_nibbles(packed);
      put(j++, job.two_level ? scale_nibbles(low, scales) : low);
      put(j++, job.two_level ? scale_nibbles(high, scales) : high);
    }
    for (int64_t j = steps; j < plan.group_tiles * tile_steps; ++j) put(j, zero);
  }
  for (int64_t j = 0; j < plan.outlier_tiles * tile_steps; ++j) {
    const uint8_t* from = job.outlier_codes + (panel * job.outlier_steps + j) * kStepBytes;
    store_codes(to + j / tile_steps * stride + j % tile_steps * kStepBytes,
                j < job.outlier_steps ? load_codes(from) : zero);
  }
}

// Integer sums of up to 32 tokens x 2 panels over one segment, [token tile][panel][16][16].
template <int kTokenTiles, int kPanels>
void multiply(const Segment& s, const TilePlan& plan, int64_t act_stride, int32_t* sums) {
  constexpr bool kTwoTokens = kTokenTiles == 2, kTwoPanels = kPanels == 2;
  _tile_zero(0);
  if constexpr (kTwoPanels) _tile_zero(1);
  if constexpr (kTwoTokens) _tile_zero(2);
  if constexpr (kTwoTokens && kTwoPanels) _tile_zero(3);
  const uint8_t* codes = s.tiles;
  for (int64_t part = 0; part < s.parts; ++part) {
    const int8_t* acts = s.acts + part * s.part_acts;
    for (int64_t i = 0; i < s.part_tiles; ++i, acts += plan.channels) {
      _tile_loadd(6, codes, 64);
      _tile_loadd(4, acts, static_cast<size_t>(act_stride));
      _tile_dpbsud(0, 4, 6);
      if constexpr (kTwoPanels) {
        _tile_loadd(7, codes + plan.bytes, 64);
        _tile_dpbsud(1, 4, 7);
      }
      if constexpr (kTwoTokens) {
        _tile_loadd(5, acts + kTileTokens * act_stride, static_cast<size_t>(act_stride));
        _tile_dpbsud(2, 5, 6);
        if constexpr (kTwoPanels) _tile_dpbsud(3, 5, 7);
      }
      codes += kPanels * plan.bytes;
    }
  }
  _tile_stored(0, sums, 64);
  if constexpr (kTwoPanels) _tile_stored(1, sums + 256, 64);
  if constexpr (kTwoTokens) _tile_stored(2, sums + 512, 64);
  if constexpr (kTwoTokens && kTwoPanels) _tile_stored(3, sums + 768, 64);
}

template <int kTokenTiles, int kPanels>
void linear_tiles(const LinearJob& job, const TilePlan& plan, const uint8_t* tiles, int64_t panel,
                  int64_t token) {
  constexpr int64_t kTokens = kTokenTiles * kTileTokens;
  alignas(64) int32_t sums[4 * 256];
  alignas(64) float results[kPanels][kTokens][kPanelRows];
  const int8_t* acts = job.acts + token * job.act_stride;
  // results (+)= float(sums - zero_point * act sum) * weight scale * act scale.
  const auto add = [&](bool first, int64_t p, Floats scale, auto act_sum, auto act_scale) {
    for (int64_t t = 0; t < kTokens; ++t) {
      const Ints sum = load(sums + (t / kTileTokens * 2 + p) * 256 + t % kTileTokens * 16) -
                       splat(static_cast<int32_t>(act_sum(t)));
      float* result = results[p][t];
      const Floats product = to_float(sum) * (scale * splat(act_scale(t)));
      store(result, first ? product : load(result) + product);
    }
  };
  Segment segment = {.tiles = tiles,
                     .parts = 1,
                     .part_acts = job.group,
                     .part_tiles = plan.group_tiles,
                     .acts = acts};
  const int32_t* act_sums = job.act_sums + token * job.groups;
  const float* act_scales = job.act_scales + token * job.act_groups;
  if (job.two_level) {
    int32_t whole[kTokens];  // 128 * sum of all body activations
    for (int64_t t = 0; t < kTokens; ++t) {
      int32_t sum = 0;
      for (int64_t g = 0; g < job.groups; ++g) sum += act_sums[t * job.groups + g];
      whole[t] = 128 * sum;
    }
    segment.parts = job.groups;
    multiply<kTokenTiles, kPanels>(segment, plan, job.act_stride, sums);
    for (int64_t p = 0; p < kPanels; ++p) {
      add(
          true, p, load(job.row_scales + (panel + p) * kPanelRows),
          [&](int64_t t) { return whole[t]; },
          [&](int64_t t) { return act_scales[t * job.act_groups]; });
    }
  } else {
    for (int64_t g = 0; g < job.groups; ++g) {
      segment.tiles = tiles + g * plan.group_tiles * kPanels * plan.bytes;
      segment.acts = acts + g * job.group;
      multiply<kTokenTiles, kPanels>(segment, plan, job.act_stride, sums);
      const int64_t act_group = job.act_groups == 1 ? 0 : g;
      for (int64_t p = 0; p < kPanels; ++p) {
        add(
            g == 0, p, load_half(job.scales + ((panel + p) * job.groups + g) * kPanelRows),
            [&](int64_t t) { return job.zero_point * act_sums[t * job.groups + g]; },
            [&](int64_t t) { return act_scales[t * job.act_groups + act_group]; });
      }
    }
  }
  if (job.outlier_codes != nullptr) {
    segment = {.tiles = tiles + plan.body_tiles * kPanels * plan.bytes,
               .parts = 1,
               .part_acts = 0,
               .part_tiles = plan.outlier_tiles,
               .acts = acts + job.act_outlier_offset};
    multiply<kTokenTiles, kPanels>(segment, plan, job.act_stride, sums);
    for (int64_t p = 0; p < kPanels; ++p) {
      add(
          false, p, load(job.outlier_scales + (panel + p) * kPanelRows),
          [&](int64_t t) { return 128 * job.act_outlier_sums[token + t]; },
          [&](int64_t t) { return job.act_outlier_scales[token + t]; });
    }
  }
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t p = 0; p < kPanels; ++p) {
      store_result(job, panel + p, token + t, load(results[p][t]));
    }
  }
}

template <int kPanels>
void linear_amx_panels(const LinearJob& job, const TilePlan& plan, int64_t panel, int64_t token,
                       int64_t token_end, uint8_t* scratch) {
  for (int p = 0; p < kPanels; ++p) {
    expand_panel(job, plan, panel + p, scratch + p * plan.bytes, kPanels * plan.bytes);
  }
  for (; token + 2 * kTileTokens <= token_end; token += 2 * kTileTokens) {
    linear_tiles<2, kPanels>(job, plan, scratch, panel, token);
  }
  if (token + kTileTokens <= token_end) {
    linear_tiles<1, kPanels>(job, plan, scratch, panel, token);
  }
}

void linear_amx(const LinearJob& job, int64_t panel, int64_t panel_end, int64_t token,
                int64_t token_end, uint8_t* scratch) {
  const int64_t tiled = token + (token_end - token) / kTileTokens * kTileTokens;
  if (tiled < token_end) linear(job, panel, panel_end, tiled, token_end, nullptr);
  if (tiled == token) return;
  const TilePlan plan(job);
  configure_tiles(plan);
  for (; panel + 2 <= panel_end; panel += 2) {
    linear_amx_panels<2>(job, plan, panel, token, tiled, scratch);
  }
  if (panel < panel_end) linear_amx_panels<1>(job, plan, panel, token, tiled, scratch);
  _tile_release();
}

}  // namespace
}  // namespace atom::cpu
