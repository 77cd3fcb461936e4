#include "backend/cuda/gemm/pack_weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "backend/cuda/gemm/nvfp4_layout.h"
#include "backend/cuda/gemm/nvfp4_sm100a_layout.h"
#include "backend/cuda/gemm/w4a16_layout.h"
#include "backend/cuda/gemm/w4a4_layout.h"
#include "backend/cuda/gemm/w4a4_s4_layout.h"

namespace atom::cuda {
namespace {

using namespace w4a8;

// Where the scales of group g of block b of row n stand, and which group of the row they belong to;
// -1 behind the last one.
struct GroupPlace {
  uint8_t* bytes;
  int64_t index;
};
GroupPlace group_place(const PackedLinear& p, const Shape& shape, int64_t n, uint8_t* row_blocks,
                       int b, int g) {
  const int64_t group = p.format.weight.group == 0 ? p.body() : p.format.weight.group;
  const int64_t k = int64_t{b} * kBlockCols + g * (kBlockCols / shape.groups);
  return {.bytes = row_blocks + b * shape.block_bytes() + kScaleOffset + g * kScaleBytes +
                   scale_place(static_cast<int>(n % kBlockRows)),
          .index = k < p.body() ? n * p.groups() + k / group : -1};
}

// The word of thread and row half in a step of 32 columns of a block: of four columns (0 .. 3 and
// so on) and, where codes are nibbles, the four columns 16 further.
uint8_t* word_at(uint8_t* block, int row, int step, int column) {
  const Place f = fragment_place(row, 4 * column);
  return block + step / 2 * 2048 + f.thread * 16 + (2 * (step % 2) + f.row_half) * 4;
}

// Four nibbles as the low halves of four bytes.
uint32_t spread(uint32_t nibbles) {
  nibbles = (nibbles | nibbles << 8) & 0x00ff00ffu;
  return (nibbles | nibbles << 4) & 0x0f0f0f0fu;
}

// The nibbles of row n's body, zeros up to whole blocks.
std::vector<uint8_t> body_nibbles(const PackedLinear& p, const Shape& shape, int64_t n) {
  std::vector<uint8_t> row(static_cast<size_t>(shape.body_blocks * (kBlockCols / 2)), 0);
  std::copy_n(p.codes.begin() + n * (p.body() / 2), p.body() / 2, row.begin());
  return row;
}

// Row n's words, each join(four nibbles, the four nibbles 16 columns further).
template <class Join>
void pack_words(const PackedLinear& p, const Shape& shape, int64_t n, uint8_t* row_blocks,
                const Join& join) {
  const std::vector<uint8_t> nibbles = body_nibbles(p, shape, n);
  const uint8_t* from = nibbles.data();
  for (int b = 0; b < shape.body_blocks; ++b) {
    uint8_t* block = row_blocks + b * shape.block_bytes();
    for (int step = 0; step < kBlockCols / 32; ++step, from += 16) {
      for (int column = 0; column < 4; ++column) {
        uint16_t low, high;
        std::memcpy(&low, from + 2 * column, sizeof(low));
        std::memcpy(&high, from + 8 + 2 * column, sizeof(high));
        const uint32_t word = join(low, high);
        std::memcpy(word_at(block, static_cast<int>(n % kBlockRows), step, column), &word,
                    sizeof(word));
      }
    }
  }
}

// Up to four of the INT8 codes of row n in the blocks of outliers: columns k ...
void place_bytes(const Shape& shape, int64_t n, uint8_t* row_blocks, int first_block, int width,
                 int64_t k, const uint8_t* codes, int count) {
  const int in_block = static_cast<int>(k % width);
  const Place f = fragment_place(static_cast<int>(n % kBlockRows), in_block);
  std::memcpy(row_blocks + (first_block + k / width) * shape.block_bytes() + in_block / 32 * 2048 +
                  f.thread * 16 + (2 * f.col_half + f.row_half) * 4,
              codes, static_cast<size_t>(count));
}

void pack_two_level(const PackedLinear& p, const Shape& shape, int64_t n, uint8_t* row_blocks) {
  pack_words(p, shape, n, row_blocks,
             [](uint32_t low, uint32_t high) { return spread(low) | spread(high) << 4; });
  for (int b = 0; b < shape.body_blocks; ++b) {
    for (int g = 0; g < shape.groups; ++g) {
      const GroupPlace place = group_place(p, shape, n, row_blocks, b, g);
      // Padding: the neutral scale that every block starts with.
      if (place.index < 0) continue;
      const auto i = static_cast<size_t>(place.index);
      place.bytes[0] = p.group_scales[i];
      place.bytes[1] = static_cast<uint8_t>(p.group_zeros[i] + 128);
    }
  }
}

void pack_bytes(const PackedLinear& p, const Shape& shape, int64_t n, uint8_t* row_blocks) {
  constexpr int64_t kPiece = 16;  // that the swizzle keeps together
  for (int64_t k = 0; k < p.cols; k += kPiece) {
    std::memcpy(row_blocks + k / kBlockCols * shape.block_bytes() +
                    wide_place(static_cast<int>(n % kBlockRows), static_cast<int>(k % kBlockCols)),
                p.codes.data() + n * p.cols + k, static_cast<size_t>(std::min(kPiece, p.cols - k)));
  }
}

void pack_group_scales(const PackedLinear& p, const Shape& shape, int64_t n, uint8_t* row_blocks) {
  for (int b = 0; b < shape.body_blocks; ++b) {
    for (int g = 0; g < shape.groups; ++g) {
      const GroupPlace place = group_place(p, shape, n, row_blocks, b, g);
      if (place.index < 0) continue;
      std::memcpy(place.bytes, &p.scales[static_cast<size_t>(place.index)], sizeof(uint16_t));
    }
  }
}

void pack_grouped(const PackedLinear& p, const Shape& shape, int64_t n, uint8_t* row_blocks) {
  if (p.format.weight.grid == CodeGrid::kE2M1) {
    pack_words(p, shape, n, row_blocks, [](uint32_t low, uint32_t high) {
      return w4a4::e2m1_word(spread(low), spread(high));
    });
  } else {
    pack_words(p, shape, n, row_blocks, [](uint32_t low, uint32_t high) {
      return w4a4::sign_magnitudes(spread(low)) | std::rotr(w4a4::sign_magnitudes(spread(high)), 4);
    });
  }
  pack_group_scales(p, shape, n, row_blocks);
}

void pack_codes(const PackedLinear& p, const Shape& shape, int64_t n, uint8_t* row_blocks) {
  const std::vector<uint8_t> nibbles = body_nibbles(p, shape, n);
  const uint8_t* from = nibbles.data();
  for (int b = 0; b < shape.body_blocks; ++b) {
    // Eight columns are a word there too.
    for (int k = 0; k < kBlockCols; k += 8, from += 4) {
      std::memcpy(row_blocks + b * shape.block_bytes() +
                      w4a4_s4::weight_place(static_cast<int>(n % kBlockRows), k).byte,
                  from, 4);
    }
  }
}

void pack_nibbles(const PackedLinear& p, const Shape& shape, int64_t n, uint8_t* row_blocks) {
  pack_codes(p, shape, n, row_blocks);
  pack_group_scales(p, shape, n, row_blocks);
}

void pack_nvfp4_row(const PackedLinear& p, const Shape& shape, int64_t n, uint8_t* row_blocks) {
  pack_codes(p, shape, n, row_blocks);
  for (int64_t k = 0; k < p.body(); k += nvfp4::kGroup) {
    const auto group = static_cast<size_t>(n * p.groups() + k / p.format.weight.group);
    row_blocks[k / kBlockCols * shape.block_bytes() +
               nvfp4::weight_scale_place(static_cast<int>(n % kBlockRows),
                                         static_cast<int>(k % kBlockCols / nvfp4::kGroup))] =
        p.group_scales[group];
  }
}

void pack_outliers(const PackedLinear& p, const Shape& shape, int64_t n, uint8_t* row_blocks) {
  const int64_t outliers = p.format.weight.outliers;
  const auto* codes = reinterpret_cast<const uint8_t*>(p.outlier_codes.data()) + n * outliers;
  for (int64_t k = 0; k < outliers; k += 4) {
    place_bytes(shape, n, row_blocks, shape.body_blocks, kOutlierCols, k, codes + k,
                static_cast<int>(std::min<int64_t>(4, outliers - k)));
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
bool fits_blocks(const PackedLinear& p) {
  const int64_t group = p.format.weight.group;
  return (group == 32 || group == 64 ||
          (group % kBlockCols == 0 && (group != 0 || p.groups() == 1))) &&
         p.format.weight.outlier_kind != OutlierKind::kFloat;
}

// fill(n, blocks of its 64 rows) writes row n.
template <class Fill>
GemmWeights pack_rows(const PackedLinear& p, const Shape& shape,
                      std::span<const uint16_t> row_scales, const Fill& fill) {
  const int64_t row_blocks = (p.rows + kBlockRows - 1) / kBlockRows;
  const int64_t stride = shape.blocks() * shape.block_bytes();  // of 64 rows
  GemmWeights packed;
  packed.blocks.assign(static_cast<size_t>(row_blocks * stride), 0);
  packed.row_scales.assign(static_cast<size_t>(row_blocks * kBlockRows), 0.0f);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < row_blocks; ++i) {
    uint8_t* blocks = packed.blocks.data() + i * stride;
    if (p.format.weight.kind == WeightKind::kTwoLevel) neutral_scales(shape, blocks);
    for (int64_t n = i * kBlockRows; n < std::min(p.rows, (i + 1) * kBlockRows); ++n) {
      if (!row_scales.empty()) {
        packed.row_scales[static_cast<size_t>(n)] = f16_to_f32(row_scales[static_cast<size_t>(n)]);
      }
      fill(n, blocks);
      pack_outliers(p, shape, n, blocks);
    }
  }
  return packed;
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

Result<GemmWeights> pack_w4a8(const PackedLinear& p) {
  if (p.format.weight.kind != WeightKind::kTwoLevel || !fits_blocks(p)) {
    return error(ErrorCode::kUnsupported, "device 'cuda': no w4a8 kernel for weights {}",
                 describe(p.format));
  }
  const Shape shape = w4a8_shape(p.format.weight, p.cols);
  return pack_rows(p, shape, p.row_scales, [&](int64_t n, uint8_t* row_blocks) {
    pack_two_level(p, shape, n, row_blocks);
  });
}

Result<GemmWeights> pack_w8a8(const PackedLinear& p) {
  const WeightFormat& format = p.format.weight;
  if (format.kind != WeightKind::kGrouped || format.bits != 8 || format.outliers != 0 ||
      p.groups() != 1 || !p.format.act.quantized) {
    return error(ErrorCode::kUnsupported, "device 'cuda': no w8a8 kernel for weights {}",
                 describe(p.format));
  }
  const Shape shape = w4a8_shape(format, p.cols);
  return pack_rows(p, shape, p.scales,
                   [&](int64_t n, uint8_t* row_blocks) { pack_bytes(p, shape, n, row_blocks); });
}

namespace {

template <class Fill>
Result<GemmWeights> pack_w4a4_rows(const PackedLinear& p, bool fits, const Fill& fill) {
  const LinearFormat& format = p.format;
  if (format.weight.kind != WeightKind::kGrouped || format.weight.bits > 4 ||
      !format.act.quantized || format.act.bits > 4 || !fits_blocks(p) || !fits) {
    return error(ErrorCode::kUnsupported, "device 'cuda': no w4a4 kernel for weights {}",
                 describe(format));
  }
  const Shape shape = w4a8_shape(format.weight, p.cols);
  return pack_rows(p, shape, p.outlier_scales,
                   [&](int64_t n, uint8_t* row_blocks) { fill(p, shape, n, row_blocks); });
}

}  // namespace

Result<GemmWeights> pack_w4a4(const PackedLinear& p) {
  return pack_w4a4_rows(p, true, pack_grouped);
}

Result<GemmWeights> pack_w4a4_s4(const PackedLinear& p) {
  const bool alike = p.format.weight.grid == p.format.act.grid;
  return pack_w4a4_rows(p, alike && w4a8_shape(p.format.weight, p.cols).groups == 1, pack_nibbles);
}

namespace {

Status check_nvfp4(const PackedLinear& p) {
  const WeightFormat& format = p.format.weight;
  if (format.scales != GroupScales::kE4M3 || p.format.act.scales != GroupScales::kE4M3 ||
      format.group == 0 || format.group % nvfp4::kGroup != 0 ||
      format.outlier_kind == OutlierKind::kFloat) {
    return error(ErrorCode::kUnsupported, "device 'cuda': no NVFP4 kernel for weights {}",
                 describe(p.format));
  }
  return {};
}

// Units, and the scales of outliers behind them.
std::vector<float> nvfp4_row_scales(const PackedLinear& p) {
  const int64_t outliers = nvfp4::outlier_scale_offset(p.rows);
  std::vector<float> scales(static_cast<size_t>(2 * outliers), 0.0f);
  std::ranges::transform(p.row_scales, scales.begin(), f16_to_f32);
  std::ranges::transform(p.outlier_scales, scales.begin() + outliers, f16_to_f32);
  return scales;
}

// Row n into the blocks of its 128 rows.
void pack_sm100a_row(const PackedLinear& p, const Shape& shape, int64_t n, uint8_t* blocks) {
  namespace layout = nvfp4_sm100a;
  const auto row = static_cast<int>(n % layout::kBlockRows);
  const auto place = [&](int64_t block, const uint8_t* codes, int64_t count) {
    for (int64_t at = 0; at < count; at += layout::kPieceBytes) {
      std::memcpy(
          blocks + block * layout::kBlockBytes + layout::row_byte(row, static_cast<int>(at)),
          codes + at, static_cast<size_t>(std::min<int64_t>(layout::kPieceBytes, count - at)));
    }
  };
  const std::vector<uint8_t> nibbles = body_nibbles(p, shape, n);
  for (int b = 0; b < shape.body_blocks; ++b) {
    place(b, nibbles.data() + int64_t{b} * layout::kRowBytes, layout::kRowBytes);
  }
  for (int64_t k = 0; k < p.body(); k += nvfp4::kGroup) {
    const auto group = static_cast<size_t>(n * p.groups() + k / p.format.weight.group);
    const auto in_block = static_cast<int>(k % kBlockCols / nvfp4::kGroup);
    blocks[k / kBlockCols * layout::kBlockBytes + layout::kCodeBytes +
           layout::scale_byte(row, in_block)] = p.group_scales[group];
  }
  const int64_t outliers = p.format.weight.outliers;
  const auto* bytes = reinterpret_cast<const uint8_t*>(p.outlier_codes.data()) + n * outliers;
  for (int64_t k = 0; k < outliers; k += layout::kRowBytes) {
    place(shape.body_blocks + k / layout::kRowBytes, bytes + k,
          std::min<int64_t>(layout::kRowBytes, outliers - k));
  }
}

}  // namespace

Result<GemmWeights> pack_nvfp4(const PackedLinear& p) {
  ATOM_TRY(check_nvfp4(p));
  const Shape shape = w4a8_shape(p.format.weight, p.cols);
  GemmWeights packed = pack_rows(p, shape, {}, [&](int64_t n, uint8_t* row_blocks) {
    pack_nvfp4_row(p, shape, n, row_blocks);
  });
  packed.row_scales = nvfp4_row_scales(p);
  return packed;
}

Result<GemmWeights> pack_nvfp4_sm100a(const PackedLinear& p) {
  ATOM_TRY(check_nvfp4(p));
  const Shape shape = w4a8_shape(p.format.weight, p.cols);
  const int64_t row_blocks = (p.rows + nvfp4_sm100a::kBlockRows - 1) / nvfp4_sm100a::kBlockRows;
  const int64_t stride = int64_t{shape.blocks()} * nvfp4_sm100a::kBlockBytes;
  GemmWeights packed;
  packed.blocks.assign(static_cast<size_t>(row_blocks * stride), 0);
  packed.row_scales = nvfp4_row_scales(p);
#pragma omp parallel for schedule(static)
  for (int64_t n = 0; n < p.rows; ++n) {
    pack_sm100a_row(p, shape, n, packed.blocks.data() + n / nvfp4_sm100a::kBlockRows * stride);
  }
  return packed;
}

int scale_exponent(const PackedLinear& p, int64_t n) {
  float most = 0;
  for (int64_t g = n * p.groups(); g < (n + 1) * p.groups(); ++g) {
    most = std::max(most, std::abs(f16_to_f32(p.scales[static_cast<size_t>(g)])));
  }
  return most > 0 && std::isfinite(most) ? std::ilogb(w4a16::kMostScale) - 1 - std::ilogb(most) : 0;
}

namespace {

// Row n into the blocks of its 128 rows.
void pack_half_operands(const PackedLinear& p, const Shape& shape, int64_t n, int exponent,
                        uint8_t* row_blocks) {
  constexpr int kStep = 16;  // columns
  const std::vector<uint8_t> nibbles = body_nibbles(p, shape, n);
  const uint8_t* from = nibbles.data();
  const auto row = static_cast<int>(n % w4a16::kBlockRows);
  const int64_t group = p.format.weight.group == 0 ? p.body() : p.format.weight.group;
  for (int b = 0; b < shape.body_blocks; ++b) {
    uint8_t* block = row_blocks + b * int64_t{w4a16::block_bytes(shape.groups)};
    for (int k = 0; k < kBlockCols; k += kStep, from += kStep / 2) {
      uint8_t* codes = block + w4a16::code_offset(k / w4a16::kHalfCols, row, shape.groups);
      for (int pair = 0; pair < 4; ++pair) {
        // Codes of columns 2 pair, + 1, + 8, + 9, from two's complement to code - 8.
        const uint32_t low = from[pair] ^ 0x88u, high = from[pair + 4] ^ 0x88u;
        const uint32_t columns =
            (low & 15) | (low >> 4) << 16 | (high & 15) << 4 | (high >> 4) << 20;
        const w4a16::Place place =
            w4a16::code_place(row % kBlockRows, k % w4a16::kHalfCols + 2 * pair);
        uint32_t word;
        std::memcpy(&word, codes + place.byte, sizeof(word));
        word |= std::rotl(columns, place.bit);
        std::memcpy(codes + place.byte, &word, sizeof(word));
      }
    }
    for (int g = 0; g < shape.groups; ++g) {
      const int64_t k = int64_t{b} * kBlockCols + g * (kBlockCols / shape.groups);
      if (k >= p.body()) break;
      const float scale = f16_to_f32(p.scales[static_cast<size_t>(n * p.groups() + k / group)]);
      const uint16_t half = f32_to_f16(std::ldexp(scale, exponent));
      std::memcpy(block + w4a16::scale_offset(g, row) + scale_place(row % kBlockRows), &half,
                  sizeof(half));
    }
  }
}

}  // namespace

Result<GemmWeights> pack_w4a16(const PackedLinear& p) {
  const WeightFormat& format = p.format.weight;
  if (format.kind != WeightKind::kGrouped || format.bits > 4 || format.grid != CodeGrid::kInt ||
      format.outliers != 0 || p.format.act.quantized || !fits_blocks(p)) {
    return error(ErrorCode::kUnsupported, "device 'cuda': no w4a16 kernel for weights {}",
                 describe(p.format));
  }
  const Shape shape = w4a8_shape(format, p.cols);
  const int64_t row_blocks = (p.rows + w4a16::kBlockRows - 1) / w4a16::kBlockRows;
  const int64_t stride = shape.body_blocks * int64_t{w4a16::block_bytes(shape.groups)};
  GemmWeights packed;
  packed.blocks.assign(static_cast<size_t>(row_blocks * stride), 0);
  packed.row_scales.assign(static_cast<size_t>(row_blocks * w4a16::kBlockRows), 0.0f);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < row_blocks; ++i) {
    const int64_t end = std::min(p.rows, (i + 1) * w4a16::kBlockRows);
    for (int64_t n = i * w4a16::kBlockRows; n < end; ++n) {
      const int exponent = scale_exponent(p, n);
      packed.row_scales[static_cast<size_t>(n)] = std::ldexp(1.0f / w4a16::kLowUnit, -exponent);
      pack_half_operands(p, shape, n, exponent, packed.blocks.data() + i * stride);
    }
  }
  return packed;
}

}  // namespace atom::cuda
