#include "backend/cuda/gemm/pack_weights.h"

#include <algorithm>
#include <cstring>

#include "backend/cuda/gemm/w4a4_layout.h"
#include "backend/cuda/gemm/w4a4_s4_layout.h"
#include "tensor/packing.h"

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

// Where the word of body column k of row n stands.
struct WordPlace {
  uint8_t* bytes;
  Place place;
};
WordPlace word_place(const Shape& shape, int64_t n, uint8_t* row_blocks, int64_t k) {
  const int in_block = static_cast<int>(k % kBlockCols), step = in_block / 32;
  const Place f = fragment_place(static_cast<int>(n % kBlockRows), in_block);
  return {.bytes = row_blocks + k / kBlockCols * shape.block_bytes() + (step / 2) * 2048 +
                   f.thread * 16 + (2 * (step % 2) + f.row_half) * 4,
          .place = f};
}

void pack_two_level(const PackedLinear& p, const Shape& shape, int64_t n, uint8_t* row_blocks) {
  for (int64_t k = 0; k < p.body(); ++k) {
    const WordPlace word = word_place(shape, n, row_blocks, k);
    const int code = unsigned_nibble(p.codes.data() + n * (p.body() / 2), k);
    word.bytes[word.place.byte] |= static_cast<uint8_t>(code << (4 * word.place.col_half));
  }
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
  for (int64_t k = 0; k < p.cols; ++k) {
    const int in_block = static_cast<int>(k % kBlockCols);
    const Place f = fragment_place(static_cast<int>(n % kBlockRows), in_block);
    row_blocks[k / kBlockCols * shape.block_bytes() + in_block / 32 * 2048 + f.thread * 16 +
               (2 * f.col_half + f.row_half) * 4 + f.byte] =
        p.codes[static_cast<size_t>(n * p.cols + k)] ^ 0x80;
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
  for (int64_t k = 0; k < p.body(); ++k) {
    const WordPlace to = word_place(shape, n, row_blocks, k);
    const int code = signed_nibble(p.codes.data() + n * (p.body() / 2), k);
    uint32_t word;
    std::memcpy(&word, to.bytes, sizeof(word));
    word |= w4a4::code_bits(code, to.place.byte, to.place.col_half);
    std::memcpy(to.bytes, &word, sizeof(word));
  }
  pack_group_scales(p, shape, n, row_blocks);
}

void pack_nibbles(const PackedLinear& p, const Shape& shape, int64_t n, uint8_t* row_blocks) {
  for (int64_t k = 0; k < p.body(); ++k) {
    const int code = unsigned_nibble(p.codes.data() + n * (p.body() / 2), k);
    const w4a4_s4::NibblePlace place =
        w4a4_s4::weight_place(static_cast<int>(n % kBlockRows), static_cast<int>(k % kBlockCols));
    row_blocks[k / kBlockCols * shape.block_bytes() + place.byte] |=
        static_cast<uint8_t>(code << place.shift);
  }
  pack_group_scales(p, shape, n, row_blocks);
}

void pack_outliers(const PackedLinear& p, const Shape& shape, int64_t n, uint8_t* row_blocks) {
  const int64_t outliers = p.format.weight.outliers;
  for (int64_t k = 0; k < outliers; ++k) {
    uint8_t* block = row_blocks + (shape.body_blocks + k / kOutlierCols) * shape.block_bytes();
    const int in_block = static_cast<int>(k % kOutlierCols);
    const Place f = fragment_place(static_cast<int>(n % kBlockRows), in_block);
    block[(in_block / 32) * 2048 + f.thread * 16 + (2 * f.col_half + f.row_half) * 4 + f.byte] =
        static_cast<uint8_t>(p.outlier_codes[static_cast<size_t>(n * outliers + k)]);
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
  return pack_w4a4_rows(p, w4a8_shape(p.format.weight, p.cols).groups == 1, pack_nibbles);
}

}  // namespace atom::cuda
