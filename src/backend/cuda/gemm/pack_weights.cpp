#include "backend/cuda/gemm/pack_weights.h"

#include <algorithm>

#include "tensor/packing.h"

namespace atom::cuda {
namespace {

using namespace w4a8;

void pack_body(const PackedLinear& p, const Shape& shape, int64_t n, uint8_t* row_blocks) {
  const int64_t body = p.body(), groups = p.groups();
  const int64_t group = p.format.weight.group == 0 ? body : p.format.weight.group;
  const int row = static_cast<int>(n % kBlockRows);
  for (int64_t k = 0; k < body; ++k) {
    uint8_t* block = row_blocks + k / kBlockCols * shape.block_bytes();
    const int in_block = static_cast<int>(k % kBlockCols), step = in_block / 32;
    const Place f = fragment_place(row, in_block);
    const int word = 2 * (step % 2) + f.row_half;
    const int code = unsigned_nibble(p.codes.data() + n * (body / 2), k);
    block[(step / 2) * 2048 + f.thread * 16 + word * 4 + f.byte] |=
        static_cast<uint8_t>(code << (4 * f.col_half));
  }
  for (int b = 0; b < shape.body_blocks; ++b) {
    for (int g = 0; g < shape.groups; ++g) {
      uint8_t* pair =
          row_blocks + b * shape.block_bytes() + kScaleOffset + g * kScaleBytes + scale_place(row);
      const int64_t k = b * kBlockCols + g * (kBlockCols / shape.groups);
      if (k >= body) continue;  // padding: the neutral scale that every block starts with
      const auto i = static_cast<size_t>(n * groups + k / group);
      pair[0] = p.group_scales[i];
      pair[1] = static_cast<uint8_t>(p.group_zeros[i] + 128);
    }
  }
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

}  // namespace

w4a8::Shape w4a8_shape(const WeightFormat& format, int64_t cols) {
  const int64_t body = body_channels(format, cols);
  Shape shape;
  shape.body_blocks = static_cast<int>((body + kBlockCols - 1) / kBlockCols);
  shape.outlier_blocks = static_cast<int>((format.outliers + kOutlierCols - 1) / kOutlierCols);
  shape.groups = format.group != 0 && format.group < kBlockCols
                     ? static_cast<int>(kBlockCols / format.group)
                     : 1;
  return shape;
}

Result<W4A8Weights> pack_w4a8(const PackedLinear& p) {
  const WeightFormat& format = p.format.weight;
  const int64_t group = format.group;
  const bool group_fits =
      group == 32 || group == 64 || (group % kBlockCols == 0 && (group != 0 || p.groups() == 1));
  if (format.kind != WeightKind::kTwoLevel || !group_fits ||
      format.outlier_kind == OutlierKind::kFloat) {
    return error(ErrorCode::kUnsupported, "device 'cuda': no w4a8 kernel for weights {}",
                 describe(p.format));
  }
  const Shape shape = w4a8_shape(format, p.cols);
  const int64_t row_blocks = (p.rows + kBlockRows - 1) / kBlockRows;
  const int64_t stride = shape.blocks() * shape.block_bytes();  // of 64 rows
  W4A8Weights packed;
  packed.blocks.assign(static_cast<size_t>(row_blocks * stride), 0);
  packed.row_scales.assign(static_cast<size_t>(row_blocks * kBlockRows), 0.0f);
  // Padding rows and columns expand to 0: code 0 with scale 1 and zero 0.
  for (int64_t i = 0; i < row_blocks; ++i) {
    for (int b = 0; b < shape.body_blocks; ++b) {
      uint8_t* scales = packed.blocks.data() + i * stride + b * shape.block_bytes() + kScaleOffset;
      for (int j = 0; j < shape.groups * kScaleBytes; ++j) scales[j] = j % 2 == 0 ? 1 : 128;
    }
  }
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < row_blocks; ++i) {
    for (int64_t n = i * kBlockRows; n < std::min(p.rows, (i + 1) * kBlockRows); ++n) {
      packed.row_scales[static_cast<size_t>(n)] = f16_to_f32(p.row_scales[static_cast<size_t>(n)]);
      pack_body(p, shape, n, packed.blocks.data() + i * stride);
      pack_outliers(p, shape, n, packed.blocks.data() + i * stride);
    }
  }
  return packed;
}

}  // namespace atom::cuda
