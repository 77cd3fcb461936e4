#include "ops/attention_fixture.h"

#include <algorithm>

namespace atom {
namespace {

constexpr int64_t kLayer = 1, kLayers = 2;

Matrix random_qkv(const AttentionCase& c, int64_t tokens, uint64_t seed) {
  Matrix m = random_matrix(tokens, c.qkv_cols(), seed, false);
  Random random(seed + 1000);
  // Outlier channels of K are the ones that make its range hard; V has none to speak of.
  for (int64_t j = c.heads * c.head_dim; j < (c.heads + c.kv_heads) * c.head_dim; j += 16) {
    const auto gain = static_cast<float>(3.0 + 5.0 * random.uniform());
    for (int64_t t = 0; t < tokens; ++t) m.at(t, j) *= gain;
  }
  for (float& v : m.values) v *= c.gain;
  return c.precision == Precision::kHalf ? halves_of(m) : m;
}

// One sequence that fills every page of the cache.
TestBatch garbage_batch(int64_t pages) {
  TestBatch made;
  made.page_count = pages;
  std::vector<int32_t> all;
  for (int64_t i = 0; i < pages; ++i) all.push_back(static_cast<int32_t>(i));
  made.pages.push_back(all);
  made.batch.tokens.assign(static_cast<size_t>(pages * kPageTokens), 0);
  made.batch.positions.assign(made.batch.tokens.size(), 0);
  made.batch.sequences.push_back(
      {.first_token = 0, .token_count = made.batch.size(), .past = 0, .pages = made.pages[0]});
  return made;
}

}  // namespace

std::string AttentionCase::name() const {
  std::string text =
      fmt::format("{} heads {}/{} x {} rotary {} prefix {} window {}{}{}{} sequences",
                  describe(format), heads, kv_heads, head_dim, rotary(), prefix_tokens, window,
                  head_norms ? " norms" : "", gain == 1.0f ? "" : fmt::format(" gain {}", gain),
                  precision == Precision::kHalf ? " halves" : "");
  for (const SequenceSpec& s : sequences) text += fmt::format(" {}+{}", s.past, s.added);
  return text;
}

std::vector<KvFormat> kv_formats(int64_t head_dim) {
  std::vector<KvFormat> formats;
  for (const KvKind kind : {KvKind::kF32, KvKind::kF16, KvKind::kInt}) {
    for (const int bits : {3, 4, 8}) {
      if (kind != KvKind::kInt && bits != 4) continue;
      for (const bool pre_rope : {false, true}) {
        for (const bool centered : {false, true}) {
          for (const bool hadamard : {false, true}) {
            const KvFormat format = {.kind = kind,
                                     .bits = bits,
                                     .pre_rope = pre_rope,
                                     .centered = centered,
                                     .hadamard = hadamard};
            if (validate(format, head_dim).ok()) formats.push_back(format);
          }
        }
      }
    }
  }
  return formats;
}

AttentionData::AttentionData(const AttentionCase& c)
    : now(make_batch(c.sequences, c.prefix_tokens, 41)) {
  past = make_past_batch(now, c.prefix_tokens);
  past_qkv = random_qkv(c, past.batch.size(), 42);
  qkv = random_qkv(c, now.batch.size(), 43);
  int64_t positions = c.prefix_tokens + 1;
  for (const SequenceSpec& s : c.sequences) {
    positions = std::max(positions, c.prefix_tokens + s.past + s.added);
  }
  cos_sin = make_cos_sin(positions, c.rotary());
  if (c.head_norms) {
    q_norm = random_weight(c.head_dim, 44);
    k_norm = random_weight(c.head_dim, 45);
  }
  if (c.format.centered) k_mean = random_matrix(1, c.kv_heads * c.head_dim, 46, false).values;
  const int64_t prefix_size = c.prefix_tokens * c.kv_heads * c.head_dim;
  prefix_k = random_matrix(1, prefix_size, 47, false).values;
  prefix_v = random_matrix(1, prefix_size, 48, false).values;
}

AttentionRun::AttentionRun(Backend& backend, const AttentionCase& c, const AttentionData& data)
    : backend_(backend), case_(c), data_(data) {
  const KvCacheShape shape = {.layers = kLayers,
                              .kv_heads = c.kv_heads,
                              .head_dim = c.head_dim,
                              .pages = data.now.page_count,
                              .format = c.format,
                              .prefix_tokens = c.prefix_tokens};
  auto cache = backend.make_kv_cache(shape);
  EXPECT_TRUE(cache.ok()) << cache.status().message();
  cache_ = std::move(cache).value();
  const TestBatch garbage = garbage_batch(shape.pages);
  Matrix huge(garbage.batch.size(), c.qkv_cols());
  // Float caches take NaN: whatever a kernel reads past a sequence's end must not count, not even
  // times zero.
  const float poison = c.format.kind == KvKind::kInt || c.head_norms
                           ? 3e4f
                           : std::numeric_limits<float>::quiet_NaN();
  for (size_t i = 0; i < huge.values.size(); ++i) huge.values[i] = i % 3 == 0 ? poison : -3e4f;
  append(garbage, huge);
  if (c.prefix_tokens > 0) cache_->set_prefix(kLayer, data.prefix_k, data.prefix_v);
}

std::unique_ptr<Tensor> AttentionRun::append(const TestBatch& batch, const Matrix& qkv) {
  const auto input = make_input(backend_, qkv, case_.precision);
  auto q = make_output(backend_, batch.batch.size(), case_.heads * case_.head_dim);
  backend_.rope_append_kv({.layer = kLayer,
                           .batch = &batch.batch,
                           .qkv = input.get(),
                           .q = q.get(),
                           .heads = case_.heads,
                           .cos_sin = data_.cos_sin,
                           .rotary_dim = case_.rotary(),
                           .q_norm = data_.q_norm,
                           .k_norm = data_.k_norm,
                           .norm_eps = 1e-6f,
                           .k_mean = data_.k_mean,
                           .cache = cache_.get()});
  return q;
}

Matrix AttentionRun::attend(const TestBatch& batch, const Tensor& q) {
  const auto out = make_output(backend_, batch.batch.size(), case_.heads * case_.head_dim);
  backend_.paged_attention({.layer = kLayer,
                            .batch = &batch.batch,
                            .q = &q,
                            .out = out.get(),
                            .heads = case_.heads,
                            .scale = 1.0f / std::sqrt(static_cast<float>(case_.head_dim)),
                            .window = case_.window,
                            .cos_sin = data_.cos_sin,
                            .rotary_dim = case_.rotary(),
                            .cache = cache_.get()});
  return read_output(backend_, *out, batch.batch.size());
}

AttentionResult AttentionRun::run() {
  if (data_.past.batch.size() > 0) append(data_.past, data_.past_qkv);
  const auto q = append(data_.now, data_.qkv);
  AttentionResult result;
  result.q = read_output(backend_, *q, data_.now.batch.size());
  result.out = attend(data_.now, *q);
  return result;
}

}  // namespace atom
