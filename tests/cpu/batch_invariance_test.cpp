// A token's attention is the same bits however its sequence is cut into batches and whatever runs
// beside it: that is what lets an engine mix, preempt and repeat requests without changing them.
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "backend/cpu/cpu_backend.h"
#include "cpu/random_linear.h"

namespace atom {
namespace {

using test::random_floats;

struct Case {
  const char* name;
  KvFormat format;
  int64_t prefix = 0;
  int64_t window = 0;
};

const Case kCases[] = {
    {"int4", {.kind = KvKind::kInt}},
    {"int4_prefix", {.kind = KvKind::kInt, .hadamard = true}, 1},
    {"int4_window", {.kind = KvKind::kInt}, 0, 600},
    {"int8_prefix_window", {.kind = KvKind::kInt, .bits = 8}, 18, 90},
    {"f32", {.kind = KvKind::kF32}, 3},
    {"int4_pre_rope", {.kind = KvKind::kInt, .pre_rope = true}, 2},
};

constexpr int64_t kHeads = 2, kKvHeads = 1, kDim = 32, kTokens = 1200;
constexpr int64_t kWidth = (kHeads + 2 * kKvHeads) * kDim;

// Attention's output for every token of one sequence that runs in chunks, [kTokens, kHeads * kDim];
// beside: tokens that another sequence runs in each of the batches.
std::vector<float> run(const Case& c, CpuIsa isa, std::span<const float> qkv,
                       std::span<const float> cos_sin, const std::vector<int64_t>& chunks,
                       int64_t beside) {
  const auto backend = make_cpu_backend({.isa = isa}).value();
  constexpr int64_t kPages = (kTokens + kPageTokens - 1) / kPageTokens;
  const auto cache = backend
                         ->make_kv_cache({.layers = 1,
                                          .kv_heads = kKvHeads,
                                          .head_dim = kDim,
                                          .pages = 2 * kPages,
                                          .format = c.format,
                                          .prefix_tokens = c.prefix})
                         .value();
  const std::vector<float> prefix = random_floats(c.prefix * kKvHeads * kDim, 5);
  cache->set_prefix(0, prefix, prefix);
  std::vector<int32_t> pages(2 * kPages);
  std::iota(pages.rbegin(), pages.rend(), 0);
  std::vector<float> all;
  int64_t past = 0, past_beside = 0;
  for (const int64_t count : chunks) {
    Batch batch;
    const int64_t more = std::min(beside, kTokens - past_beside);
    const auto add = [&](int64_t tokens, int64_t before, std::span<const int32_t> own_pages) {
      if (tokens == 0) return;
      batch.sequences.push_back({batch.size(), tokens, before, own_pages});
      for (int64_t t = 0; t < tokens; ++t) {
        batch.tokens.push_back(0);
        batch.positions.push_back(static_cast<int32_t>(c.prefix + before + t));
      }
    };
    add(more, past_beside, std::span(pages).last(kPages));
    add(count, past, std::span(pages).first(kPages));
    std::vector<float> input = random_floats(more * kWidth, 9);
    input.insert(input.end(), qkv.begin() + past * kWidth, qkv.begin() + (past + count) * kWidth);
    const int64_t tokens = batch.size();
    auto in = backend->make_tensor(tokens, kWidth).value();
    auto q = backend->make_tensor(tokens, kHeads * kDim).value();
    auto out = backend->make_tensor(tokens, kHeads * kDim).value();
    backend->write(*in, input);
    backend->rope_append_kv({.batch = &batch,
                             .qkv = in.get(),
                             .q = q.get(),
                             .heads = kHeads,
                             .cos_sin = cos_sin,
                             .rotary_dim = kDim,
                             .cache = cache.get()});
    backend->paged_attention({.batch = &batch,
                              .q = q.get(),
                              .out = out.get(),
                              .heads = kHeads,
                              .scale = 0.3f,
                              .window = c.window,
                              .cos_sin = cos_sin,
                              .rotary_dim = kDim,
                              .cache = cache.get()});
    std::vector<float> result(static_cast<size_t>(tokens * kHeads * kDim));
    backend->read(*out, tokens, result);
    all.insert(all.end(), result.begin() + more * kHeads * kDim, result.end());
    past += count;
    past_beside += more;
  }
  return all;
}

class BatchInvarianceTest : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Formats, BatchInvarianceTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(BatchInvarianceTest, AttentionIsTheSameBits) {
  const std::vector<float> qkv = random_floats(kTokens * kWidth, 1);
  const std::vector<float> cos_sin = random_floats(1300 * kDim, 2);
  std::vector<int64_t> odd, mixed;
  for (int64_t left = kTokens; left > 0; left -= odd.back()) {
    odd.push_back(std::min<int64_t>(left, 37));
  }
  // Long chunks, then single tokens across the boundaries of chunks of keys, then all the rest.
  mixed = {505};
  for (int i = 0; i < 25; ++i) mixed.push_back(1);
  mixed.push_back(480);
  for (int i = 0; i < 30; ++i) mixed.push_back(1 + i % 4);
  mixed.push_back(kTokens - std::accumulate(mixed.begin(), mixed.end(), int64_t{0}));
  for (const CpuIsa isa : kAllCpuIsas) {
    if (!make_cpu_backend({.isa = isa}).ok()) continue;
    const std::vector<float> whole = run(GetParam(), isa, qkv, cos_sin, {kTokens}, 0);
    ASSERT_EQ(whole.size(), static_cast<size_t>(kTokens * kHeads * kDim));
    for (const auto& chunks : {odd, mixed}) {
      const std::vector<float> cut = run(GetParam(), isa, qkv, cos_sin, chunks, 11);
      ASSERT_EQ(cut.size(), whole.size());
      for (size_t i = 0; i < whole.size(); ++i) {
        ASSERT_EQ(std::memcmp(&cut[i], &whole[i], sizeof(float)), 0)
            << cpu_isa_name(isa) << " token " << i / (kHeads * kDim) << ": " << cut[i] << " and "
            << whole[i];
      }
    }
  }
}

}  // namespace
}  // namespace atom
