// Chunks by the tensor core kernels against the exact kernel on the same cache, with more tiles of
// columns than multiprocessors: CTAs go through several of them.
#include "base/random.h"
#include "cuda/attention_problem.h"
#include "ops/numerics.h"

namespace atom::cuda {
namespace {

// Queries and weights are rounded to halves.
constexpr double kLimit = 1e-6;

struct Chunk {
  int past, count;
  int length() const { return past + count; }
  int pages() const { return (length() + 15) / 16; }
};

struct Case {
  std::vector<Chunk> chunks;
  int heads, kv_heads, head_dim;
  KvFormat format = kInt4;
  int window = 0;
};

uint16_t half_between(Random& random, float low, float high) {
  return f32_to_f16(low + (high - low) * static_cast<float>(random.uniform()));
}

// Pages of a sequence whose tokens exist; all else is 0xff, NaN as halves and as scales.
void fill(const PageLayout& layout, const Chunk& chunk, uint8_t* record, int page, Random& random) {
  for (int which = 0; which < 2; ++which) {
    for (int t = 0; t < 16 && page * 16 + t < chunk.length(); ++t) {
      for (int d = 0; d < layout.head_dim; ++d) {
        const PagePlace at = layout.place(which == 1, t, d);
        if (layout.bits == 16) {
          const uint16_t half = half_between(random, -1.0f, 1.0f);
          std::memcpy(record + at.byte, &half, 2);
        } else if (layout.bits == 8) {
          record[at.byte] = static_cast<uint8_t>(random.below(256));
        } else {
          record[at.byte] = static_cast<uint8_t>((record[at.byte] & ~(0xf << at.shift)) |
                                                 random.below(16) << at.shift);
        }
      }
      if (layout.kind != KvKind::kInt) continue;
      const float step = 2.0f / static_cast<float>((1 << layout.bits) - 1);
      const uint16_t scales[2] = {half_between(random, 0.5f * step, step),
                                  half_between(random, -1.0f, 0.0f)};
      std::memcpy(record + layout.scale(which == 1, t), scales, 4);
    }
  }
}

void check(const Case& c) {
  AttentionProblem problem = {.layout = PageLayout::of(c.format, c.head_dim),
                              .heads = c.heads,
                              .kv_heads = c.kv_heads,
                              .window = c.window};
  Random random(static_cast<uint64_t>(c.head_dim + c.window));
  std::vector<int32_t> token_sequences;
  std::vector<attention::ChunkItem> items;
  std::vector<int32_t>& table = problem.table;
  for (const Chunk& chunk : c.chunks) {
    const auto index = static_cast<int32_t>(items.size());
    items.push_back({.past = chunk.past,
                     .count = chunk.count,
                     .page_offset = static_cast<int32_t>(table.size()),
                     .row = static_cast<int32_t>(token_sequences.size())});
    problem.offsets.push_back(items.back().page_offset);
    problem.past.push_back(chunk.past);
    problem.counts.push_back(chunk.count);
    problem.rows.push_back(items.back().row);
    token_sequences.insert(token_sequences.end(), static_cast<size_t>(chunk.count), index);
    for (int i = 0; i < chunk.pages(); ++i) table.push_back(static_cast<int32_t>(table.size()));
  }
  for (size_t i = table.size(); i > 1; --i) {
    std::swap(table[i - 1], table[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
  }
  problem.cache.assign(static_cast<size_t>(problem.page_stride()) * table.size(), 0xff);
  for (size_t s = 0; s < c.chunks.size(); ++s) {
    for (int page = 0; page < c.chunks[s].pages(); ++page) {
      const int32_t at = table[static_cast<size_t>(problem.offsets[s] + page)];
      for (int kv_head = 0; kv_head < c.kv_heads; ++kv_head) {
        fill(problem.layout, c.chunks[s],
             problem.cache.data() + at * problem.page_stride() + kv_head * problem.layout.bytes(),
             page, random);
      }
    }
  }
  const auto tokens = static_cast<int64_t>(token_sequences.size());
  problem.q.resize(static_cast<size_t>(tokens * c.heads * c.head_dim));
  for (float& x : problem.q) x = static_cast<float>(2.0 * random.normal());

  DeviceAttention attention(problem);
  const auto d_token_sequences = to_device(token_sequences);
  const auto d_items = to_device(items);
  const auto run = [&](bool exact) {
    return attention.run({.chunk_list = d_items.data(),
                          .chunks = problem.counts,
                          .token_sequences = d_token_sequences.data(),
                          .tokens = tokens,
                          .exact = exact});
  };
  const std::vector<float> exact = run(true);
  EXPECT_LE(nmse(run(false), {exact.begin(), exact.end()}), kLimit);
}

TEST(ChunkAttention, OneTile) { check({{{0, 64}}, 1, 1, 128}); }
TEST(ChunkAttention, FewTiles) { check({{{77, 200}, {0, 2}}, 4, 2, 128}); }
// Tiles of 1 to 3 pages' tail among them, so that the warps' rings part ways.
TEST(ChunkAttention, ManyTurns) {
  check({{{0, 700}, {300, 260}, {5, 129}, {64, 2}, {0, 17}}, 40, 40, 128});
}
// A turn in which some of the warps that unpack have no page, before one in which all have several.
TEST(ChunkAttention, FewPagesBeforeMany) { check({{{0, 512}, {0, 500}}, 32, 8, 128}); }
TEST(ChunkAttention, ManyTurnsGrouped) { check({{{0, 300}, {100, 260}}, 64, 16, 128}); }
TEST(ChunkAttention, ManyTurnsOfAWindow) {
  check({{{0, 500}, {300, 260}, {5, 129}}, 40, 40, 128, kInt4, 100});
}
TEST(ChunkAttention, HeadDim64) { check({{{0, 500}, {33, 260}}, 40, 40, 64}); }
TEST(ChunkAttention, HeadDim96) { check({{{0, 500}, {33, 260}}, 40, 40, 96}); }
TEST(ChunkAttention, HeadDim256) { check({{{0, 150}, {33, 60}}, 40, 40, 256}); }
TEST(ChunkAttention, Int8Cache) { check({{{0, 500}, {33, 260}}, 40, 40, 128, kInt8}); }
TEST(ChunkAttention, Int8Cache64) { check({{{0, 500}, {33, 260}}, 40, 40, 64, kInt8}); }
TEST(ChunkAttention, Int8Cache96) { check({{{0, 500}, {33, 260}}, 40, 40, 96, kInt8}); }
TEST(ChunkAttention, F16Cache) { check({{{0, 500}, {33, 260}}, 40, 40, 128, kF16}); }
TEST(ChunkAttention, F16Cache64) { check({{{0, 500}, {33, 260}}, 40, 40, 64, kF16}); }
TEST(ChunkAttention, F16Cache96) { check({{{0, 500}, {33, 260}}, 40, 40, 96, kF16}); }

}  // namespace
}  // namespace atom::cuda
