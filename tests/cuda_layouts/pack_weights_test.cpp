// Linears are packed from their parts, a row block at a time, over whatever stands there. Needs no
// GPU; that kernels read the blocks as they are meant is for the GPU tests.
#include "backend/cuda/gemm/pack_weights.h"

#include <gtest/gtest.h>

#include "cuda/nvfp4_cases.h"
#include "cuda/packed_blocks.h"

namespace atom::cuda {
namespace {

using Packer = Result<BlockPacker> (*)(const JoinedRows&);
using MakeLinear = PackedLinear (*)(int64_t rows, uint64_t seed);

constexpr int64_t kBody = 352;  // two blocks and three quarters

PackedLinear float_activations(PackedLinear linear) {
  linear.format.act = {};
  return linear;
}

struct PackCase {
  const char* name;
  Packer pack;
  MakeLinear make;
};
const PackCase kPackCases[] = {
    {"w4a8", pack_w4a8,
     [](int64_t rows, uint64_t seed) { return random_two_level(rows, kBody, 36, 32, seed, true); }},
    {"w8a8", pack_w8a8,
     [](int64_t rows, uint64_t seed) { return random_rows8(rows, kBody, seed, true); }},
    {"w4a4", pack_w4a4,
     [](int64_t rows, uint64_t seed) { return random_grouped(rows, kBody, 36, 32, seed, true); }},
    {"fp4", pack_w4a4,
     [](int64_t rows, uint64_t seed) { return random_fp4(rows, kBody, 36, 32, seed, true); }},
    {"w4a4_s4", pack_w4a4_s4,
     [](int64_t rows, uint64_t seed) { return random_grouped(rows, 256, 36, 128, seed, true); }},
    {"nvfp4", pack_nvfp4,
     [](int64_t rows, uint64_t seed) { return random_nvfp4(rows, kBody, 36, 16, seed, true); }},
    {"nvfp4_sm100a", pack_nvfp4_sm100a,
     [](int64_t rows, uint64_t seed) { return random_nvfp4(rows, kBody, 36, 16, seed, true); }},
    {"w4a16", pack_w4a16, [](int64_t rows, uint64_t seed) {
       return float_activations(random_grouped(rows, kBody, 0, 32, seed, true));
     }}};

void expect_alike(const JoinedRows& rows, const PackCase& c) {
  const BlockPacker packer = c.pack(rows).value();
  const PackedLinear whole = rows.join();
  const GemmWeights want = pack_all(c.pack(whole).value()), got = pack_all(packer);
  EXPECT_TRUE(got.blocks == want.blocks);
  EXPECT_EQ(got.row_scales, want.row_scales);
  EXPECT_TRUE(pack_all(packer, 0).blocks == want.blocks) << "bytes that packing leaves";
}

TEST(PackWeights, PartsPackLikeTheLinearThatJoinsThem) {
  for (const PackCase& c : kPackCases) {
    SCOPED_TRACE(c.name);
    // Parts end inside row blocks, and the last one fills none.
    const PackedLinear q = c.make(96, 1), k = c.make(40, 2), v = c.make(40, 3);
    const PackedLinear* qkv[] = {&q, &k, &v};
    expect_alike(JoinedRows(qkv), c);
    const PackedLinear gate = c.make(72, 4), up = c.make(72, 5);
    const PackedLinear* gate_up[] = {&gate, &up};
    expect_alike(JoinedRows(gate_up, kGateRun), c);
  }
}

}  // namespace
}  // namespace atom::cuda
