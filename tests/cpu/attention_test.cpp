// rope_append_kv and paged_attention against plain loops in double over the values that the cache's
// codes stand for, with pages in shuffled order, prefixes, several sequences and chunked prompts.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "backend/cpu/cpu_backend.h"
#include "cpu/random_linear.h"
#include "ops/numerics.h"

namespace atom {
namespace {

using test::nmse;
using test::random_floats;

struct Case {
  const char* name;
  KvFormat format;
  int64_t heads, kv_heads, dim;
  int64_t prefix = 0;
  int64_t window = 0;
  bool norm = false;
  int64_t rotary = 0;     // 0: dim
  float scale_up = 1.0f;  // of q: sharper attention
};

const Case kCases[] = {
    {"f32", {.kind = KvKind::kF32}, 4, 2, 32},
    {"f32_odd", {.kind = KvKind::kF32}, 3, 1, 10, 3},
    {"f16", {.kind = KvKind::kF16}, 9, 3, 64, 1},
    {"int4", {.kind = KvKind::kInt}, 9, 3, 64},
    {"int4_default",
     {.kind = KvKind::kInt, .centered = true, .hadamard = true},
     9,
     3,
     64,
     1,
     0,
     false,
     0,
     3.0f},
    {"int4_window", {.kind = KvKind::kInt}, 8, 2, 128, 2, 37},
    {"int4_gqa16", {.kind = KvKind::kInt}, 16, 1, 64, 0},
    {"int4_norm", {.kind = KvKind::kInt}, 4, 4, 64, 1, 0, true},
    {"int4_dim80", {.kind = KvKind::kInt}, 4, 2, 80, 1, 0, false, 32},
    {"int4_dim6", {.kind = KvKind::kInt}, 4, 2, 6, 1},
    {"int4_pre_rope", {.kind = KvKind::kInt, .pre_rope = true}, 9, 3, 64, 2},
    {"int8_pre_rope", {.kind = KvKind::kInt, .bits = 8, .pre_rope = true}, 2, 1, 64, 0, 20},
    {"int3", {.kind = KvKind::kInt, .bits = 3}, 9, 3, 64},
    {"int8", {.kind = KvKind::kInt, .bits = 8}, 9, 3, 64, 1},
    {"int8_dim24", {.kind = KvKind::kInt, .bits = 8}, 5, 1, 24, 1, 9},
};

std::vector<CpuIsa> isas_here() {
  std::vector<CpuIsa> found;
  for (const CpuIsa isa : kAllCpuIsas) {
    if (make_cpu_backend({.isa = isa}).ok()) found.push_back(isa);
  }
  return found;
}

// One layer's keys, values and queries as doubles, by the formulas of ops/numerics.h.
struct Expected {
  const Case& c;
  std::vector<float> cos_sin;
  std::vector<float> q_norm, k_norm, k_mean;
  std::vector<float> prefix_k, prefix_v;

  explicit Expected(const Case& made_for) : c(made_for) {
    const int64_t half = rotary() / 2;
    for (int64_t p = 0; p < 4096; ++p) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(p) *
                             std::pow(1e4, -static_cast<double>(i) / static_cast<double>(half));
        cos_sin.push_back(static_cast<float>(std::cos(angle)));
        cos_sin.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    if (c.norm) {
      q_norm = random_floats(c.dim, 11);
      k_norm = random_floats(c.dim, 12);
    }
    if (c.format.centered) k_mean = random_floats(c.kv_heads * c.dim, 13);
    prefix_k = random_floats(c.prefix * c.kv_heads * c.dim, 14);
    prefix_v = random_floats(c.prefix * c.kv_heads * c.dim, 15);
  }
  int64_t rotary() const { return c.rotary == 0 ? c.dim : c.rotary; }

  void rotate(std::span<float> head, int64_t position) const {
    const float* row = cos_sin.data() + position * rotary();
    for (int64_t i = 0; i < rotary() / 2; ++i) {
      numerics::rotate_pair(head[static_cast<size_t>(i)],
                            head[static_cast<size_t>(i + rotary() / 2)], row[2 * i],
                            row[2 * i + 1]);
    }
  }
  void norm(std::span<float> head, std::span<const float> weight) const {
    if (weight.empty()) return;
    const float factor = numerics::rms_factor(head, 1e-6f);
    for (size_t i = 0; i < head.size(); ++i) head[i] = head[i] * factor * weight[i];
  }
  std::vector<float> query(const float* from, int64_t position) const {
    std::vector<float> head(from, from + c.dim);
    norm(head, q_norm);
    rotate(head, position);
    if (c.format.hadamard) numerics::hadamard(head);
    return head;
  }
  // What the cache stands for once the vector is stored.
  void round_trip(std::vector<float>& head) const {
    if (c.format.kind == KvKind::kF16) {
      for (float& v : head) v = f16_to_f32(f32_to_f16(v));
    }
    if (c.format.kind != KvKind::kInt) return;
    std::vector<uint8_t> codes(head.size());
    const auto scale = numerics::quantize_kv(head, c.format.bits, codes.data());
    for (size_t i = 0; i < head.size(); ++i) {
      head[i] = f16_to_f32(scale.min) + codes[i] * f16_to_f32(scale.scale);
    }
  }
  std::vector<float> key(const float* from, int64_t kv_head, int64_t position) const {
    std::vector<float> head(from, from + c.dim);
    norm(head, k_norm);
    if (!c.format.pre_rope) rotate(head, position);
    if (!k_mean.empty()) {
      for (int64_t d = 0; d < c.dim; ++d) {
        head[static_cast<size_t>(d)] -= k_mean[static_cast<size_t>(kv_head * c.dim + d)];
      }
    }
    if (c.format.hadamard) numerics::hadamard(head);
    round_trip(head);
    if (c.format.pre_rope) rotate(head, position);
    return head;
  }
};

class AttentionTest : public testing::TestWithParam<Case> {};

// Feeds sequences chunk by chunk and compares every output with the double result.
void run(const Case& c, const std::vector<std::vector<int64_t>>& chunks) {
  const Expected expected(c);
  const int64_t count = static_cast<int64_t>(chunks.size());
  int64_t longest = 0, total_pages = 0;
  std::vector<int64_t> lengths;
  for (const auto& sizes : chunks) {
    int64_t length = 0;
    for (const int64_t n : sizes) length += n;
    lengths.push_back(length);
    longest = std::max<int64_t>(longest, static_cast<int64_t>(sizes.size()));
    total_pages += (length + kPageTokens - 1) / kPageTokens;
  }
  const KvCacheShape shape = {.layers = 2,
                              .kv_heads = c.kv_heads,
                              .head_dim = c.dim,
                              .pages = total_pages + 3,
                              .format = c.format,
                              .prefix_tokens = c.prefix};
  struct Machine {
    std::unique_ptr<Backend> backend;
    std::unique_ptr<KvCache> cache;
  };
  std::vector<Machine> machines;
  for (const CpuIsa isa : isas_here()) {
    auto backend = make_cpu_backend({.isa = isa}).value();
    auto cache = backend->make_kv_cache(shape).value();
    for (int64_t layer = 0; layer < 2; ++layer) {
      cache->set_prefix(layer, expected.prefix_k, expected.prefix_v);
    }
    machines.push_back({std::move(backend), std::move(cache)});
  }
  // Pages handed out from the back, sequences interleaved.
  std::vector<std::vector<int32_t>> pages(chunks.size());
  int32_t next_page = static_cast<int32_t>(total_pages + 2);
  for (bool more = true; more;) {
    more = false;
    for (size_t s = 0; s < chunks.size(); ++s) {
      if (static_cast<int64_t>(pages[s].size()) * kPageTokens >= lengths[s]) continue;
      pages[s].push_back(next_page--);
      more = true;
    }
  }
  const int64_t width = (c.heads + 2 * c.kv_heads) * c.dim;
  std::vector<std::vector<std::vector<float>>> keys(chunks.size()), values(chunks.size());
  for (size_t s = 0; s < chunks.size(); ++s) {
    for (int64_t p = 0; p < c.prefix; ++p) {
      for (int64_t h = 0; h < c.kv_heads; ++h) {
        const float* k = expected.prefix_k.data() + (p * c.kv_heads + h) * c.dim;
        const float* v = expected.prefix_v.data() + (p * c.kv_heads + h) * c.dim;
        keys[s].emplace_back(k, k + c.dim);
        if (c.format.pre_rope) expected.rotate(keys[s].back(), p);
        values[s].emplace_back(v, v + c.dim);
      }
    }
  }
  std::vector<int64_t> past(chunks.size(), 0);
  for (int64_t round = 0; round < longest; ++round) {
    Batch batch;
    for (int64_t s = 0; s < count; ++s) {
      const auto index = static_cast<size_t>(s);
      if (round >= static_cast<int64_t>(chunks[index].size())) continue;
      const int64_t n = chunks[index][static_cast<size_t>(round)];
      batch.sequences.push_back({batch.size(), n, past[index], pages[index]});
      for (int64_t i = 0; i < n; ++i) {
        batch.tokens.push_back(0);
        batch.positions.push_back(static_cast<int32_t>(c.prefix + past[index] + i));
      }
    }
    const int64_t tokens = batch.size();
    std::vector<float> input = random_floats(tokens * width, 100 + static_cast<uint64_t>(round));
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i < c.heads * c.dim; ++i) {
        input[static_cast<size_t>(t * width + i)] *= c.scale_up;
      }
    }
    const int64_t layer = round % 2;
    const float scale = 1.0f / std::sqrt(static_cast<float>(c.dim));
    const auto size = static_cast<size_t>(tokens * c.heads * c.dim);
    std::vector<double> want(size);
    std::vector<float> want_q(size);
    int64_t t = 0;
    for (int64_t s = 0; s < count; ++s) {
      const auto index = static_cast<size_t>(s);
      if (round >= static_cast<int64_t>(chunks[index].size())) continue;
      const int64_t n = chunks[index][static_cast<size_t>(round)];
      for (int64_t i = 0; i < n; ++i) {
        const float* row = input.data() + (t + i) * width;
        for (int64_t h = 0; h < c.kv_heads; ++h) {
          keys[index].push_back(
              expected.key(row + (c.heads + h) * c.dim, h, c.prefix + past[index] + i));
          const float* v = row + (c.heads + c.kv_heads + h) * c.dim;
          values[index].emplace_back(v, v + c.dim);
          expected.round_trip(values[index].back());
        }
      }
      for (int64_t i = 0; i < n; ++i, ++t) {
        const int64_t last = c.prefix + past[index] + i;
        const int64_t first = c.window == 0 ? 0 : std::max<int64_t>(0, last - c.window + 1);
        for (int64_t h = 0; h < c.heads; ++h) {
          const std::vector<float> query =
              expected.query(input.data() + t * width + h * c.dim, last);
          std::copy(query.begin(), query.end(),
                    want_q.begin() + static_cast<std::ptrdiff_t>((t * c.heads + h) * c.dim));
          std::vector<double> weights;
          double total = 0;
          for (int64_t j = first; j <= last; ++j) {
            const auto& key =
                keys[index][static_cast<size_t>(j * c.kv_heads + h / (c.heads / c.kv_heads))];
            double dot = 0;
            for (int64_t d = 0; d < c.dim; ++d) {
              dot +=
                  static_cast<double>(query[static_cast<size_t>(d)]) * key[static_cast<size_t>(d)];
            }
            weights.push_back(std::exp(dot * scale));
            total += weights.back();
          }
          for (int64_t j = first; j <= last; ++j) {
            const auto& value =
                values[index][static_cast<size_t>(j * c.kv_heads + h / (c.heads / c.kv_heads))];
            for (int64_t d = 0; d < c.dim; ++d) {
              want[static_cast<size_t>((t * c.heads + h) * c.dim + d)] +=
                  weights[static_cast<size_t>(j - first)] / total * value[static_cast<size_t>(d)];
            }
          }
        }
      }
      past[index] += n;
    }
    for (const auto& [backend, cache] : machines) {
      auto qkv = backend->make_tensor(tokens, width).value();
      auto q = backend->make_tensor(tokens, c.heads * c.dim).value();
      auto out = backend->make_tensor(tokens, c.heads * c.dim).value();
      backend->write(*qkv, input);
      const std::vector<float> poison(size, std::numeric_limits<float>::quiet_NaN());
      backend->write(*out, poison);
      for (int64_t l = 0; l < 2; ++l) {
        backend->rope_append_kv({.layer = l,
                                 .batch = &batch,
                                 .qkv = qkv.get(),
                                 .q = q.get(),
                                 .heads = c.heads,
                                 .cos_sin = expected.cos_sin,
                                 .rotary_dim = expected.rotary(),
                                 .q_norm = expected.q_norm,
                                 .k_norm = expected.k_norm,
                                 .k_mean = expected.k_mean,
                                 .cache = cache.get()});
      }
      backend->paged_attention({.layer = layer,
                                .batch = &batch,
                                .q = q.get(),
                                .out = out.get(),
                                .heads = c.heads,
                                .scale = scale,
                                .window = c.window,
                                .cos_sin = expected.cos_sin,
                                .rotary_dim = expected.rotary(),
                                .cache = cache.get()});
      std::vector<float> got(poison.size()), got_q(poison.size());
      backend->read(*out, tokens, got);
      backend->read(*q, tokens, got_q);
      EXPECT_EQ(got_q, want_q) << backend->detail();
      // Sums in float over exact products of the same cached values.
      EXPECT_LT(nmse(got, want), 1e-8) << backend->detail() << " round " << round;
    }
  }
}

TEST_P(AttentionTest, PrefillThenDecode) { run(GetParam(), {{70, 1, 1, 1, 1}}); }

TEST_P(AttentionTest, SeveralSequencesInChunks) {
  run(GetParam(), {{5, 1, 40, 1, 17}, {1, 1, 1, 33, 2}, {16, 16, 1, 1}});
}

TEST_P(AttentionTest, DeepDecode) { run(GetParam(), {{530, 1, 2}, {1, 1, 1}}); }

INSTANTIATE_TEST_SUITE_P(Formats, AttentionTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace atom
