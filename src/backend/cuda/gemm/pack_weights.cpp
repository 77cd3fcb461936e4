#include "backend/cuda/gemm/pack_weights.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "backend/cuda/gemm/nvfp4_layout.h"
#include "backend/cuda/gemm/nvfp4_sm100a_layout.h"
#include "backend/cuda/gemm/w4a16_layout.h"
#include "backend/cuda/gemm/w4a4_layout.h"
#include "backend/cuda/gemm/w4a4_s4_layout.h"
#include "base/parallel.h"

namespace atom::cuda {
namespace {

using namespace w4a8;

// Row n of a linear, which becomes row `place` of a row block.
struct Row {
  const PackedLinear& p;
  int64_t n;
  int place;
};

// Calls f(bytes, index) for each group of each body block of a row: where its scales stand, and the
// group of the linear that they belong to.
template <class F>
void each_group(const Row& row, const Shape& shape, uint8_t* row_blocks, const F& f) {
  const int64_t body = row.p.body(), first = row.n * row.p.groups();
  const int64_t group = row.p.format.weight.group == 0 ? body : row.p.format.weight.group;
  uint8_t* bytes = row_blocks + kScaleOffset + scale_place(row.place);
  for (int64_t b = 0; b < shape.body_blocks; ++b, bytes += shape.block_bytes()) {
    for (int g = 0; g < shape.groups; ++g) {
      const int64_t k = b * kBlockCols + g * (kBlockCols / shape.groups);
      if (k < body) f(bytes + g * kScaleBytes, static_cast<size_t>(first + k / group));
    }
  }
}

// Calls f(b, nibbles) for each body block b with the 64 bytes of a row's nibbles there, zeros
// behind the row's end.
template <class F>
void each_block(const Row& row, const F& f) {
  constexpr int64_t kBytes = kBlockCols / 2;
  const int64_t bytes = row.p.body() / 2;
  const uint8_t* codes = row.p.codes.data() + row.n * bytes;
  int64_t b = 0;
  for (; (b + 1) * kBytes <= bytes; ++b) f(b, codes + b * kBytes);
  if (b * kBytes == bytes) return;
  std::array<uint8_t, kBytes> padded = {};
  std::memcpy(padded.data(), codes + b * kBytes, static_cast<size_t>(bytes - b * kBytes));
  f(b, padded.data());
}

// A row's words, each join(four nibbles, the four nibbles 16 columns further), nibbles as bytes.
template <class Join>
void pack_words(const Row& row, const Shape& shape, uint8_t* row_blocks, const Join& join) {
  const Place first = fragment_place(row.place, 0);
  uint8_t* words_at = row_blocks + first.thread * 16 + first.row_half * 4;
  each_block(row, [&](int64_t b, const uint8_t* from) {
    std::array<uint8_t, kBlockCols> nibbles;
    for (size_t i = 0; i < nibbles.size() / 2; ++i) {
      nibbles[2 * i] = from[i] & 15;
      nibbles[2 * i + 1] = from[i] >> 4;
    }
    std::array<uint32_t, kBlockCols / 4> fours;
    std::memcpy(fours.data(), nibbles.data(), nibbles.size());
    std::array<uint32_t, kBlockCols / 8> words;
    for (size_t i = 0; i < words.size(); ++i) {
      words[i] = join(fours[i / 4 * 8 + i % 4], fours[i / 4 * 8 + 4 + i % 4]);
    }
    // Four threads' words of a step stand 16 bytes apart.
    for (size_t i = 0; i < words.size(); ++i) {
      const size_t step = i / 4;
      std::memcpy(words_at + b * shape.block_bytes() + step / 2 * 2048 + step % 2 * 8 + i % 4 * 16,
                  &words[i], sizeof(uint32_t));
    }
  });
}

void pack_two_level(const Row& row, const Shape& shape, uint8_t* row_blocks) {
  pack_words(row, shape, row_blocks, [](uint32_t low, uint32_t high) { return low | high << 4; });
  // Padding keeps the neutral scale that every block starts with.
  each_group(row, shape, row_blocks, [&](uint8_t* bytes, size_t index) {
    bytes[0] = row.p.group_scales[index];
    bytes[1] = static_cast<uint8_t>(row.p.group_zeros[index] + 128);
  });
}

void pack_bytes(const Row& row, const Shape& shape, uint8_t* row_blocks) {
  constexpr int64_t kPiece = 16;  // that the swizzle keeps together
  const int64_t cols = row.p.cols;
  for (int64_t k = 0; k < cols; k += kPiece) {
    std::memcpy(row_blocks + k / kBlockCols * shape.block_bytes() +
                    wide_place(row.place, static_cast<int>(k % kBlockCols)),
                row.p.codes.data() + row.n * cols + k,
                static_cast<size_t>(std::min(kPiece, cols - k)));
  }
}

void pack_group_scales(const Row& row, const Shape& shape, uint8_t* row_blocks) {
  each_group(row, shape, row_blocks, [&](uint8_t* bytes, size_t index) {
    std::memcpy(bytes, &row.p.scales[index], sizeof(uint16_t));
  });
}

void pack_grouped(const Row& row, const Shape& shape, uint8_t* row_blocks) {
  if (row.p.format.weight.grid == CodeGrid::kE2M1) {
    pack_words(row, shape, row_blocks,
               [](uint32_t low, uint32_t high) { return w4a4::e2m1_word(low, high); });
  } else {
    pack_words(row, shape, row_blocks, [](uint32_t low, uint32_t high) {
      return w4a4::sign_magnitudes(low) | std::rotr(w4a4::sign_magnitudes(high), 4);
    });
  }
  pack_group_scales(row, shape, row_blocks);
}

void pack_codes(const Row& row, const Shape& shape, uint8_t* row_blocks) {
  each_block(row, [&](int64_t b, const uint8_t* from) {
    // Eight columns are a word there too.
    for (int k = 0; k < kBlockCols; k += 8, from += 4) {
      std::memcpy(row_blocks + b * shape.block_bytes() + w4a4_s4::weight_place(row.place, k).byte,
                  from, 4);
    }
  });
}

void pack_nibbles(const Row& row, const Shape& shape, uint8_t* row_blocks) {
  pack_codes(row, shape, row_blocks);
  pack_group_scales(row, shape, row_blocks);
}

// Calls f(b, g, bits) with the E4M3 scale of each run g of 16 columns of each body block b.
template <class F>
void each_e4m3_scale(const Row& row, const F& f) {
  const int64_t body = row.p.body(), group = row.p.format.weight.group;
  const uint8_t* scales = row.p.group_scales.data() + row.n * row.p.groups();
  for (int64_t k = 0; k < body; k += nvfp4::kGroup) {
    f(k / kBlockCols, static_cast<int>(k % kBlockCols / nvfp4::kGroup), scales[k / group]);
  }
}

void pack_nvfp4_row(const Row& row, const Shape& shape, uint8_t* row_blocks) {
  pack_codes(row, shape, row_blocks);
  each_e4m3_scale(row, [&](int64_t b, int g, uint8_t bits) {
    row_blocks[b * shape.block_bytes() + nvfp4::weight_scale_place(row.place, g)] = bits;
  });
}

const uint8_t* outliers_of(const Row& row) {
  return reinterpret_cast<const uint8_t*>(row.p.outlier_codes.data()) +
         row.n * row.p.format.weight.outliers;
}

// A row's INT8 codes in the blocks of outliers, behind those of the body.
void pack_outliers(const Row& row, const Shape& shape, uint8_t* row_blocks) {
  const int64_t outliers = row.p.format.weight.outliers;
  for (int64_t k = 0; k < outliers; k += 4) {
    const auto in_block = static_cast<int>(k % kOutlierCols);
    const Place f = fragment_place(row.place, in_block);
    std::memcpy(row_blocks + (shape.body_blocks + k / kOutlierCols) * shape.block_bytes() +
                    in_block / 32 * 2048 + f.thread * 16 + (2 * f.col_half + f.row_half) * 4,
                outliers_of(row) + k, static_cast<size_t>(std::min<int64_t>(4, outliers - k)));
  }
}

// Padding rows and columns of two-level weights expand to 0: code 0 with scale 1 and zero 0.
void neutral_scales(const Shape& shape, uint8_t* row_blocks) {
  for (int b = 0; b < shape.body_blocks; ++b) {
    uint8_t* scales = row_blocks + b * shape.block_bytes() + kScaleOffset;
    for (int j = 0; j < shape.groups * kScaleBytes; ++j) scales[j] = j % 2 == 0 ? 1 : 128;
  }
}

// A group of 32, 64 or a multiple of 128, outliers none or INT8.
bool fits_blocks(const JoinedRows& linear) {
  const WeightFormat& format = linear.format().weight;
  return (format.group == 32 || format.group == 64 ||
          (format.group % kBlockCols == 0 && (format.group != 0 || linear.groups() == 1))) &&
         format.outlier_kind != OutlierKind::kFloat;
}

Status no_kernel(const char* kernel, const JoinedRows& linear) {
  return error(ErrorCode::kUnsupported, "device 'cuda': no {} kernel for weights {}", kernel,
               describe(linear.format()));
}

// Row blocks of `height` rows and `bytes` bytes: zeros, what start(blocks) writes and, for each of
// their rows, pack_row(row, blocks).
template <class Start, class PackRow>
BlockPacker make_packer(const JoinedRows& linear, int height, int64_t bytes, const Start& start,
                        const PackRow& pack_row) {
  BlockPacker packer;
  packer.row_blocks = (linear.rows() + height - 1) / height;
  packer.row_block_bytes = bytes;
  packer.pack = [=](int64_t i, uint8_t* to) {
    std::memset(to, 0, static_cast<size_t>(bytes));
    start(to);
    const int64_t first = i * height, count = std::min<int64_t>(height, linear.rows() - first);
    for (int64_t place = 0; place < count; ++place) {
      const auto [part, n] = linear.row(first + place);
      pack_row(Row{.p = *part, .n = n, .place = static_cast<int>(place)}, to);
    }
  };
  return packer;
}

// Row blocks of 64 rows, a row's body packed by fill(row, shape, blocks), then its outliers.
template <class Fill>
BlockPacker pack_rows(const JoinedRows& linear, std::vector<uint16_t> PackedLinear::*row_scales,
                      const Fill& fill) {
  const WeightFormat& format = linear.format().weight;
  const Shape shape = w4a8_shape(format, linear.cols());
  const bool two_level = format.kind == WeightKind::kTwoLevel;
  BlockPacker packer = make_packer(
      linear, kBlockRows, shape.blocks() * shape.block_bytes(),
      [=](uint8_t* blocks) {
        if (two_level) neutral_scales(shape, blocks);
      },
      [=](const Row& row, uint8_t* blocks) {
        fill(row, shape, blocks);
        pack_outliers(row, shape, blocks);
      });
  packer.row_scales.resize(static_cast<size_t>(packer.row_blocks * kBlockRows));
  std::ranges::transform(linear.joined(row_scales), packer.row_scales.begin(), f16_to_f32);
  return packer;
}

}  // namespace

w4a8::Shape w4a8_shape(const WeightFormat& format, int64_t cols) {
  const int64_t body = body_channels(format, cols);
  Shape shape;
  shape.body_blocks = static_cast<int>((body + kBlockCols - 1) / kBlockCols);
  shape.outlier_blocks = static_cast<int>((format.outliers + kOutlierCols - 1) / kOutlierCols);
  shape.groups = format.group != 0 && format.group < kBlockCols
                     ? static_cast<int>(kBlockCols / format.group)
                     : 1;
  if (format.scales == GroupScales::kE4M3) shape.groups = nvfp4::kShapeGroups;
  shape.wide = format.kind == WeightKind::kGrouped && format.bits == 8;
  return shape;
}

Result<BlockPacker> pack_w4a8(const JoinedRows& linear) {
  if (linear.format().weight.kind != WeightKind::kTwoLevel || !fits_blocks(linear)) {
    return no_kernel("w4a8", linear);
  }
  return pack_rows(linear, &PackedLinear::row_scales, pack_two_level);
}

Result<BlockPacker> pack_w8a8(const JoinedRows& linear) {
  const WeightFormat& format = linear.format().weight;
  if (format.kind != WeightKind::kGrouped || format.bits != 8 || format.outliers != 0 ||
      linear.groups() != 1 || !linear.format().act.quantized) {
    return no_kernel("w8a8", linear);
  }
  return pack_rows(linear, &PackedLinear::scales, pack_bytes);
}

namespace {

bool fits_w4a4(const JoinedRows& linear) {
  const auto& [weight, act] = linear.format();
  return weight.kind == WeightKind::kGrouped && weight.bits <= 4 && act.quantized &&
         act.bits <= 4 && fits_blocks(linear);
}

}  // namespace

Result<BlockPacker> pack_w4a4(const JoinedRows& linear) {
  if (!fits_w4a4(linear)) return no_kernel("w4a4", linear);
  return pack_rows(linear, &PackedLinear::outlier_scales, pack_grouped);
}

Result<BlockPacker> pack_w4a4_s4(const JoinedRows& linear) {
  const LinearFormat& format = linear.format();
  if (!fits_w4a4(linear) || format.weight.grid != format.act.grid ||
      w4a8_shape(format.weight, linear.cols()).groups != 1) {
    return no_kernel("w4a4", linear);
  }
  return pack_rows(linear, &PackedLinear::outlier_scales, pack_nibbles);
}

namespace {

Status check_nvfp4(const JoinedRows& linear) {
  const auto& [weight, act] = linear.format();
  if (weight.scales != GroupScales::kE4M3 || act.scales != GroupScales::kE4M3 ||
      weight.group == 0 || weight.group % nvfp4::kGroup != 0 ||
      weight.outlier_kind == OutlierKind::kFloat) {
    return no_kernel("NVFP4", linear);
  }
  return {};
}

// Units, and the scales of outliers behind them.
std::vector<float> nvfp4_row_scales(const JoinedRows& linear) {
  const int64_t outliers = nvfp4::outlier_scale_offset(linear.rows());
  std::vector<float> scales(static_cast<size_t>(2 * outliers), 0.0f);
  std::ranges::transform(linear.joined(&PackedLinear::row_scales), scales.begin(), f16_to_f32);
  std::ranges::transform(linear.joined(&PackedLinear::outlier_scales), scales.begin() + outliers,
                         f16_to_f32);
  return scales;
}

// A row into the blocks of its 128 rows.
void pack_sm100a_row(const Row& row, const Shape& shape, uint8_t* blocks) {
  namespace layout = nvfp4_sm100a;
  const auto place = [&](int64_t block, const uint8_t* codes, int64_t count) {
    for (int64_t at = 0; at < count; at += layout::kPieceBytes) {
      std::memcpy(
          blocks + block * layout::kBlockBytes + layout::row_byte(row.place, static_cast<int>(at)),
          codes + at, static_cast<size_t>(std::min<int64_t>(layout::kPieceBytes, count - at)));
    }
  };
  each_block(row, [&](int64_t b, const uint8_t* codes) { place(b, codes, layout::kRowBytes); });
  each_e4m3_scale(row, [&](int64_t b, int g, uint8_t bits) {
    blocks[b * layout::kBlockBytes + layout::kCodeBytes + layout::scale_byte(row.place, g)] = bits;
  });
  const int64_t outliers = row.p.format.weight.outliers;
  for (int64_t k = 0; k < outliers; k += layout::kRowBytes) {
    place(shape.body_blocks + k / layout::kRowBytes, outliers_of(row) + k,
          std::min<int64_t>(layout::kRowBytes, outliers - k));
  }
}

constexpr auto kNoStart = [](uint8_t*) {};

}  // namespace

Result<BlockPacker> pack_nvfp4(const JoinedRows& linear) {
  ATOM_TRY(check_nvfp4(linear));
  BlockPacker packer = pack_rows(linear, &PackedLinear::row_scales, pack_nvfp4_row);
  packer.row_scales = nvfp4_row_scales(linear);
  return packer;
}

Result<BlockPacker> pack_nvfp4_sm100a(const JoinedRows& linear) {
  ATOM_TRY(check_nvfp4(linear));
  const Shape shape = w4a8_shape(linear.format().weight, linear.cols());
  BlockPacker packer = make_packer(
      linear, nvfp4_sm100a::kBlockRows, int64_t{shape.blocks()} * nvfp4_sm100a::kBlockBytes,
      kNoStart, [=](const Row& row, uint8_t* blocks) { pack_sm100a_row(row, shape, blocks); });
  packer.row_scales = nvfp4_row_scales(linear);
  return packer;
}

int scale_exponent(const PackedLinear& p, int64_t n) {
  float most = 0;
  for (int64_t g = n * p.groups(); g < (n + 1) * p.groups(); ++g) {
    most = std::max(most, std::abs(f16_to_f32(p.scales[static_cast<size_t>(g)])));
  }
  return most > 0 && std::isfinite(most) ? std::ilogb(w4a16::kMostScale) - 1 - std::ilogb(most) : 0;
}

namespace {

// A row into the blocks of its 128 rows, its scales times 2^scale_exponent.
void pack_half_operands(const Row& row, const Shape& shape, uint8_t* row_blocks) {
  constexpr int kStep = 16;  // columns
  const int exponent = scale_exponent(row.p, row.n);
  const int64_t body = row.p.body(), first = row.n * row.p.groups();
  const int64_t group = row.p.format.weight.group == 0 ? body : row.p.format.weight.group;
  each_block(row, [&](int64_t b, const uint8_t* from) {
    uint8_t* block = row_blocks + b * int64_t{w4a16::block_bytes(shape.groups)};
    for (int k = 0; k < kBlockCols; k += kStep, from += kStep / 2) {
      uint8_t* codes = block + w4a16::code_offset(k / w4a16::kHalfCols, row.place, shape.groups);
      for (int pair = 0; pair < 4; ++pair) {
        // Codes of columns 2 pair, + 1, + 8, + 9, from two's complement to code - 8.
        const uint32_t low = from[pair] ^ 0x88u, high = from[pair + 4] ^ 0x88u;
        const uint32_t columns =
            (low & 15) | (low >> 4) << 16 | (high & 15) << 4 | (high >> 4) << 20;
        const w4a16::Place place =
            w4a16::code_place(row.place % kBlockRows, k % w4a16::kHalfCols + 2 * pair);
        uint32_t word;
        std::memcpy(&word, codes + place.byte, sizeof(word));
        word |= std::rotl(columns, place.bit);
        std::memcpy(codes + place.byte, &word, sizeof(word));
      }
    }
    for (int g = 0; g < shape.groups; ++g) {
      const int64_t k = b * kBlockCols + g * (kBlockCols / shape.groups);
      if (k >= body) break;
      const float scale = f16_to_f32(row.p.scales[static_cast<size_t>(first + k / group)]);
      const uint16_t half = f32_to_f16(std::ldexp(scale, exponent));
      std::memcpy(block + w4a16::scale_offset(g, row.place) + scale_place(row.place % kBlockRows),
                  &half, sizeof(half));
    }
  });
}

}  // namespace

Result<BlockPacker> pack_w4a16(const JoinedRows& linear) {
  const auto& [weight, act] = linear.format();
  if (weight.kind != WeightKind::kGrouped || weight.bits > 4 || weight.grid != CodeGrid::kInt ||
      weight.outliers != 0 || act.quantized || !fits_blocks(linear)) {
    return no_kernel("w4a16", linear);
  }
  const Shape shape = w4a8_shape(weight, linear.cols());
  BlockPacker packer = make_packer(
      linear, w4a16::kBlockRows, shape.body_blocks * int64_t{w4a16::block_bytes(shape.groups)},
      kNoStart, [=](const Row& row, uint8_t* blocks) { pack_half_operands(row, shape, blocks); });
  packer.row_scales.resize(static_cast<size_t>(packer.row_blocks * w4a16::kBlockRows));
  parallel_for(packer.row_blocks, [&](int64_t i) {
    const int64_t end = std::min(linear.rows(), (i + 1) * w4a16::kBlockRows);
    for (int64_t n = i * w4a16::kBlockRows; n < end; ++n) {
      const auto [part, index] = linear.row(n);
      packer.row_scales[static_cast<size_t>(n)] =
          std::ldexp(1.0f / w4a16::kLowUnit, -scale_exponent(*part, index));
    }
  });
  return packer;
}

}  // namespace atom::cuda
