// What sm_100a's tensor cores find where codes and scales are put: places are computed here as the
// PTX ISA describes what the hardware reads. Needs no GPU.
#include <gtest/gtest.h>

#include <set>

#include "backend/cuda/gemm/nvfp4_sm100a_layout.h"
#include "backend/cuda/gemm/pack_weights.h"
#include "backend/cuda/ptx/tcgen05_descriptors.h"
#include "backend/cuda/rows/code_places.h"
#include "cuda/nvfp4_cases.h"
#include "cuda/packed_blocks.h"

namespace atom::cuda {
namespace {

// Where byte `byte` of a row of 64 bytes stands under the 64-byte swizzle: bits 4 and 5 of an
// address, counted from a multiple of 512, are those of the plain address xor its bits 7 and 8.
int64_t swizzled(int64_t row, int64_t byte) {
  const int64_t address = row * 64 + byte;
  return address ^ (address >> 7 & 3) << 4;
}
// Where the scale of group g (0..3) of a product's row stands: a copy of 512 bytes fills 32 lanes
// with 16 bytes each, four columns; row r is in lane r % 32 of column r / 32, its groups in order.
int64_t scale_of(int64_t row, int64_t g) { return row % 32 * 16 + row / 32 * 4 + g; }

struct Blocks {
  GemmWeights packed;
  int64_t blocks;  // along K
  const uint8_t* at(int64_t row, int64_t block) const {
    return packed.blocks.data() + (row / 128 * blocks + block) * (8192 + 1024);
  }
};

void check_weights(int64_t rows, int64_t body, int64_t outliers, int64_t group) {
  const PackedLinear p = random_nvfp4(rows, body, outliers, group, 7, false);
  const int64_t body_blocks = (body + 127) / 128, outlier_blocks = (outliers + 63) / 64;
  const Blocks w = {.packed = pack_all(pack_nvfp4_sm100a(p).value()),
                    .blocks = body_blocks + outlier_blocks};
  const int64_t padded = (rows + 127) / 128 * 128;
  ASSERT_EQ(std::ssize(w.packed.blocks), padded / 128 * w.blocks * (8192 + 1024));
  for (int64_t n = 0; n < padded; ++n) {
    for (int64_t k = 0; k < body_blocks * 128; ++k) {
      const uint8_t* block = w.at(n, k / 128);
      const bool real = n < rows && k < body;
      const int code = block[swizzled(n % 128, k % 128 / 2)] >> (k % 2 * 4) & 15;
      const int want = real ? p.codes[static_cast<size_t>((n * body + k) / 2)] >> (k % 2 * 4) : 0;
      ASSERT_EQ(code, want & 15) << n << ", " << k;
      const int scale = block[8192 + k % 128 / 64 * 512 + scale_of(n % 128, k % 64 / 16)];
      const auto g = static_cast<size_t>(n * (body / group) + k / group);
      ASSERT_EQ(scale, real ? p.group_scales[g] : 0) << n << ", " << k;
    }
    for (int64_t k = 0; k < outlier_blocks * 64; ++k) {
      const uint8_t byte = w.at(n, body_blocks + k / 64)[swizzled(n % 128, k % 64)];
      const bool real = n < rows && k < outliers;
      ASSERT_EQ(static_cast<int8_t>(byte),
                real ? p.outlier_codes[static_cast<size_t>(n * outliers + k)] : 0)
          << n << ", outlier " << k;
    }
  }
  // Units, then outlier scales, both padded to 64 rows.
  const int64_t half = (rows + 63) / 64 * 64;
  ASSERT_EQ(std::ssize(w.packed.row_scales), 2 * half);
  for (int64_t n = 0; n < half; ++n) {
    const auto i = static_cast<size_t>(n);
    EXPECT_EQ(w.packed.row_scales[i], n < rows ? f16_to_f32(p.row_scales[i]) : 0.0f);
    EXPECT_EQ(w.packed.row_scales[static_cast<size_t>(half) + i],
              n < rows ? f16_to_f32(p.outlier_scales[i]) : 0.0f);
  }
}

TEST(NvFp4Sm100aWeights, WholeBlocks) { check_weights(256, 256, 128, 16); }
TEST(NvFp4Sm100aWeights, RaggedRowsAndColumns) { check_weights(200, 176, 40, 16); }
TEST(NvFp4Sm100aWeights, LongGroups) { check_weights(130, 192, 64, 64); }
TEST(NvFp4Sm100aWeights, RefusesOtherScales) {
  EXPECT_EQ(pack_nvfp4_sm100a(random_fp4(64, 128, 64, 16, 1)).status().code(),
            ErrorCode::kUnsupported);
}

// Tiles of tokens begin at multiples of 128; what a tile needs of a block is one run of bytes.
TEST(NvFp4Sm100aActivations, TilesAreRuns) {
  constexpr int64_t kCapacity = 512, kBody = 384, kOutliers = 192;
  const CodePlaces places = {
      .layout = LinearLayout::kNvFp4Sm100a,
      .grid = CodeGrid::kE2M1,
      .capacity = kCapacity,
      .outlier_offset = kBody,
      .shape = {.body_blocks = 3, .outlier_blocks = 3, .groups = nvfp4::kShapeGroups}};
  std::set<int64_t> seen;
  for (int64_t t = 0; t < kCapacity; ++t) {
    const int64_t tile = t / 128 * 128, row = t % 128;
    for (int64_t k = 0; k < kBody; ++k) {
      const int64_t run = (k / 128 * kCapacity + tile) * 64;
      ASSERT_EQ(places.byte(t, k), run + swizzled(row, k % 128 / 2));
      if (k % 2 == 0) seen.insert(places.byte(t, k));
      const int64_t scales =
          nvfp4_sm100a::activation_scales(places.shape, k / 128, tile, kCapacity);
      ASSERT_EQ(places.scale_byte(t, k), scales + k % 128 / 64 * 512 + scale_of(row, k % 64 / 16));
      if (k % 16 == 0) seen.insert(places.scale_byte(t, k));
    }
    for (int64_t k = 0; k < kOutliers; ++k) {
      const int64_t run =
          nvfp4_sm100a::outlier_start(places.shape, kCapacity) + (k / 64 * kCapacity + tile) * 64;
      ASSERT_EQ(places.byte(t, kBody + k), run + swizzled(row, k % 64));
      seen.insert(places.byte(t, kBody + k));
    }
  }
  // No two share a byte, and all are within the buffer.
  EXPECT_EQ(std::ssize(seen), kCapacity * (kBody / 2 + kBody / 16 + kOutliers));
  EXPECT_GE(*seen.begin(), 0);
  EXPECT_LT(*seen.rbegin(), places.code_bytes(kCapacity));
}

// Fields as in the tables of the PTX ISA.
TEST(Tcgen05Descriptors, SharedMatrix) {
  const uint64_t d = ptx::shared_matrix(0x1a420, 512, ptx::Swizzle::k64Bytes);
  EXPECT_EQ(d & 0x3fff, 0x1a42u);    // address / 16
  EXPECT_EQ(d >> 16 & 0x3fff, 0u);   // leading dimension
  EXPECT_EQ(d >> 32 & 0x3fff, 32u);  // stride / 16
  EXPECT_EQ(d >> 46 & 7, 1u);        // constant
  EXPECT_EQ(d >> 49 & 0xfff, 0u);    // base offset, mode, constant
  EXPECT_EQ(d >> 61, 4u);            // swizzle
  EXPECT_EQ(ptx::shared_matrix(0x1a440, 512, ptx::Swizzle::k64Bytes), d + 2);
}
TEST(Tcgen05Descriptors, Products) {
  EXPECT_EQ((ptx::nvfp4_product<128, 128>()), 0x08200480u);
  EXPECT_EQ((ptx::nvfp4_product<128, 32>()), 0x08080480u);
  EXPECT_EQ((ptx::s8_product<128, 128>()), 0x082004a0u);
  EXPECT_EQ((ptx::s8_product<128, 32>()), 0x080804a0u);
}

}  // namespace
}  // namespace atom::cuda
