// rope_append_kv: what a cache holds afterwards, read back through attention that lets one token at
// a time be seen.
#include <algorithm>

#include "ops/attention_fixture.h"
#include "ops/numerics.h"

namespace atom {
namespace {

constexpr int64_t kPositions = 120;

struct KvCase {
  KvFormat format;
  int64_t head_dim = 64;
  bool head_norms = false;
  Precision precision = Precision::kFull;  // of qkv
};

constexpr int64_t kKvHeads = 2;
constexpr int64_t kHeads = 8 * kKvHeads;
constexpr int32_t kTokenPositions[] = {1, 17, 100};  // three sequences of one token

// What a stored vector reads back as.
std::vector<double> round_trip(const std::vector<float>& x, const KvFormat& format) {
  std::vector<double> y(x.begin(), x.end());
  if (format.kind == KvKind::kF16) {
    for (double& v : y) v = f16_to_f32(f32_to_f16(static_cast<float>(v)));
  }
  if (format.kind == KvKind::kInt) {
    std::vector<uint8_t> codes(x.size());
    const numerics::KvScale s = numerics::quantize_kv(x, format.bits, codes.data());
    for (size_t i = 0; i < x.size(); ++i) {
      y[i] = f16_to_f32(s.min) + codes[i] * static_cast<double>(f16_to_f32(s.scale));
    }
  }
  return y;
}

// Far less than a step of 8-bit codes (a 255th of the range), far more than float rounding.
double tolerance(const std::vector<double>& x) {
  const auto [low, high] = std::ranges::minmax(x);
  return 2e-5 * std::max({high - low, std::abs(low), std::abs(high)});
}

class KvProbe {
 public:
  KvProbe(Backend& backend, const KvCase& c)
      : backend_(backend),
        case_(c),
        cos_sin_(make_cos_sin(kPositions, c.head_dim)),
        qkv_(random_matrix(3, (kHeads + 2 * kKvHeads) * c.head_dim, 61)) {
    if (c.precision == Precision::kHalf) qkv_ = halves_of(qkv_);
    identity_.resize(cos_sin_.size());
    for (size_t i = 0; i < identity_.size(); i += 2) identity_[i] = 1.0f;
    const std::vector<SequenceSpec> sequences(3);
    now_ = make_batch(sequences, 1, 62);
    std::ranges::copy(kTokenPositions, now_.batch.positions.begin());
    if (c.head_norms) {
      q_norm_ = random_weight(c.head_dim, 63);
      k_norm_ = random_weight(c.head_dim, 64);
    }
    if (c.format.centered) k_mean_ = random_matrix(1, kKvHeads * c.head_dim, 65, false).values;
    auto cache = backend.make_kv_cache({.layers = 1,
                                        .kv_heads = kKvHeads,
                                        .head_dim = c.head_dim,
                                        .pages = now_.page_count,
                                        .format = c.format,
                                        .prefix_tokens = 1});
    EXPECT_TRUE(cache.ok()) << cache.status().message();
    cache_ = std::move(cache).value();
    // The key that the others are measured against: zero, with value zero.
    const std::vector<float> zeros(static_cast<size_t>(kKvHeads * c.head_dim));
    cache_->set_prefix(0, zeros, zeros);
  }

  // value: overwrites V when given.
  Matrix append(const float* value) {
    Matrix qkv = qkv_;
    for (int64_t t = 0; t < 3 && value != nullptr; ++t) {
      for (int64_t j = (kHeads + kKvHeads) * case_.head_dim; j < qkv.cols; ++j) {
        qkv.at(t, j) = *value;
      }
    }
    const auto input = make_input(backend_, qkv, case_.precision);
    const auto q = make_output(backend_, 3, kHeads * case_.head_dim);
    backend_.rope_append_kv({.batch = &now_.batch,
                             .qkv = input.get(),
                             .q = q.get(),
                             .heads = kHeads,
                             .cos_sin = cos_sin_,
                             .rotary_dim = case_.head_dim,
                             .q_norm = q_norm_,
                             .k_norm = k_norm_,
                             .norm_eps = 1e-6f,
                             .k_mean = k_mean_,
                             .cache = cache_.get()});
    return read_output(backend_, *q, 3);
  }

  Matrix attend(const Matrix& queries, double scale, int64_t window) {
    const auto q = make_input(backend_, queries);
    const auto out = make_output(backend_, 3, kHeads * case_.head_dim);
    backend_.paged_attention({.batch = &now_.batch,
                              .q = q.get(),
                              .out = out.get(),
                              .heads = kHeads,
                              .scale = static_cast<float>(scale),
                              .window = window,
                              .cos_sin = identity_,
                              .rotary_dim = case_.head_dim,
                              .cache = cache_.get()});
    return read_output(backend_, *out, 3);
  }

  // The steps that docs/quantization.md lists, for one head of q or k.
  std::vector<float> prepared(int64_t token, int64_t column, bool query) const {
    const std::span<const float> row =
        qkv_.row(token).subspan(static_cast<size_t>(column), static_cast<size_t>(case_.head_dim));
    std::vector<float> x(row.begin(), row.end());
    const std::vector<float>& norm = query ? q_norm_ : k_norm_;
    if (!norm.empty()) {
      const float factor = numerics::rms_factor(x, 1e-6f);
      for (size_t i = 0; i < x.size(); ++i) x[i] = x[i] * factor * norm[i];
    }
    if (query || !case_.format.pre_rope) {
      const size_t half = x.size() / 2;
      const float* angles = cos_sin_.data() + kTokenPositions[token] * case_.head_dim;
      for (size_t i = 0; i < half; ++i) {
        numerics::rotate_pair(x[i], x[i + half], angles[2 * i], angles[2 * i + 1]);
      }
    }
    if (!query && case_.format.centered) {
      const int64_t head = column / case_.head_dim - kHeads;
      for (size_t i = 0; i < x.size(); ++i) {
        x[i] -= k_mean_[static_cast<size_t>(head * case_.head_dim) + i];
      }
    }
    if (case_.format.hadamard) numerics::hadamard(x);
    return x;
  }

  const Matrix& qkv() const { return qkv_; }

 private:
  Backend& backend_;
  const KvCase& case_;
  TestBatch now_;
  std::vector<float> cos_sin_, q_norm_, k_norm_, k_mean_;
  // Positions that turn nothing, so that a query meets a pre-RoPE cache's K as it is.
  std::vector<float> identity_;
  Matrix qkv_;
  std::unique_ptr<KvCache> cache_;
};

std::vector<KvCase> kv_cases() {
  std::vector<KvCase> cases;
  for (const int64_t head_dim : {64, 96, 128}) {
    for (const KvFormat& format : kv_formats(head_dim)) {
      if (head_dim != 64 && format.bits != 4) continue;
      cases.push_back({format, head_dim, static_cast<int>(cases.size()) % 2 == 1});
    }
  }
  const KvFormat rotated = {.kind = KvKind::kInt, .bits = 4, .hadamard = true};
  cases.push_back({rotated, 256, true});
  for (const int64_t head_dim : {64, 96, 128}) {
    cases.push_back({head_dim == 96 ? KvFormat{} : rotated, head_dim, false, Precision::kHalf});
  }
  return cases;
}

template <class Check>
void for_each_case(const Check& check) {
  for (const KvCase& c : kv_cases()) {
    SCOPED_TRACE(
        fmt::format("{} x {}{}", describe(c.format), c.head_dim, c.head_norms ? " norms" : ""));
    for (Backend* backend : all_backends()) {
      if (!supports(*backend, c.format)) continue;
      SCOPED_TRACE(backend->detail());
      KvProbe probe(*backend, c);
      check(c, probe, *backend);
    }
    if (testing::Test::HasFailure()) return;
  }
}

TEST(RopeAppendKv, QueriesAreTheSameOnEveryBackend) {
  for_each_case([](const KvCase& c, KvProbe& probe, const Backend&) {
    const Matrix q = probe.append(nullptr);
    for (int64_t t = 0; t < 3; ++t) {
      for (int64_t h = 0; h < kHeads; ++h) {
        const std::vector<float> want = probe.prepared(t, h * c.head_dim, true);
        expect_same(q.row(t).subspan(static_cast<size_t>(h * c.head_dim), want.size()), want);
      }
    }
  });
}

// A query sees the zero prefix key and one key k; values are 0 and 1. With q the unit vector of a
// channel the output is sigmoid(scale * k[channel]), which tells k.
TEST(RopeAppendKv, KeyCodesAreExact) {
  for_each_case([](const KvCase& c, KvProbe& probe, const Backend& backend) {
    // Weights in halves do not tell a key exactly (those of constant values in integer caches do:
    // such values are all minimum, which is summed in float).
    if (c.format.kind == KvKind::kF16 && attends_in_halves(backend)) return;
    const float one = 1.0f;
    probe.append(&one);
    std::vector<std::vector<double>> want;  // [3 * KH][DH]
    double largest = 0;
    for (int64_t t = 0; t < 3; ++t) {
      for (int64_t h = 0; h < kKvHeads; ++h) {
        want.push_back(round_trip(probe.prepared(t, (kHeads + h) * c.head_dim, false), c.format));
        for (const double v : want.back()) largest = std::max(largest, std::abs(v));
      }
    }
    const double scale = static_cast<float>(4.0 / largest);
    for (int64_t first = 0; first < c.head_dim; first += kHeads / kKvHeads) {
      Matrix q(3, kHeads * c.head_dim);
      for (int64_t t = 0; t < 3; ++t) {
        for (int64_t h = 0; h < kHeads; ++h) q.at(t, h * c.head_dim + first + h % 8) = 1.0f;
      }
      const Matrix out = probe.attend(q, scale, 0);
      for (int64_t t = 0; t < 3; ++t) {
        for (int64_t h = 0; h < kHeads; ++h) {
          const std::vector<double>& k = want[static_cast<size_t>(t * kKvHeads + h / 8)];
          const double p = out.at(t, h * c.head_dim);
          const double got = std::log(p / (1 - p)) / scale;
          ASSERT_NEAR(got, k[static_cast<size_t>(first + h % 8)],
                      tolerance({-largest, largest}) + tolerance(k))
              << "token " << t << ", head " << h / 8 << ", channel " << first + h % 8;
        }
      }
    }
  });
}

// A query whose window is its own token returns that token's value.
TEST(RopeAppendKv, ValueCodesAreExact) {
  for_each_case([](const KvCase& c, KvProbe& probe, const Backend&) {
    probe.append(nullptr);
    const Matrix out = probe.attend(random_matrix(3, kHeads * c.head_dim, 66), 0.01, 1);
    const Matrix& qkv = probe.qkv();
    for (int64_t t = 0; t < 3; ++t) {
      for (int64_t h = 0; h < kHeads; ++h) {
        const auto v =
            qkv.row(t).subspan(static_cast<size_t>((kHeads + kKvHeads + h / 8) * c.head_dim),
                               static_cast<size_t>(c.head_dim));
        const std::vector<double> want = round_trip({v.begin(), v.end()}, c.format);
        for (int64_t d = 0; d < c.head_dim; ++d) {
          ASSERT_NEAR(out.at(t, h * c.head_dim + d), want[static_cast<size_t>(d)], tolerance(want))
              << "token " << t << ", head " << h / 8 << ", channel " << d;
        }
      }
    }
  });
}

// A batch of one token of one of `whole`'s sequences.
TestBatch single_token(const TestBatch& whole, size_t sequence, int64_t token) {
  const SequenceSlice& slice = whole.batch.sequences[sequence];
  TestBatch made;
  made.page_count = whole.page_count;
  made.pages.push_back(whole.pages[sequence]);
  made.batch.tokens.push_back(0);
  made.batch.positions.push_back(
      whole.batch.positions[static_cast<size_t>(slice.first_token + token)]);
  made.batch.sequences.push_back(
      {.first_token = 0, .token_count = 1, .past = slice.past + token, .pages = made.pages[0]});
  return made;
}

// Whole pages, parts of pages and single tokens in one batch, as large as kernels of many tokens
// want it, leave what tokens one by one do.
TEST(RopeAppendKv, ChunksStoreWhatTokensAloneDo) {
  const auto kv = [](int bits, bool rotated) {
    return KvFormat{.kind = KvKind::kInt, .bits = bits, .centered = rotated, .hadamard = rotated};
  };
  std::vector<AttentionCase> cases;
  for (const int64_t head_dim : {64, 128}) {
    for (const KvFormat& format : {kv(4, true), kv(head_dim == 64 ? 3 : 8, false)}) {
      const bool odd = cases.size() == 1 || cases.size() == 2;
      const int64_t most = odd ? 467 : 211;
      cases.push_back(
          {.sequences = {{5, 1}, {0, 1}, {0, most}, {7, 170}, {16, 16}, {3, 9}, {20, 1}},
           .format = format,
           .heads = odd ? 9 : 5,
           .kv_heads = odd ? 3 : 5,
           .head_dim = head_dim,
           .head_norms = odd,
           .precision = Precision::kHalf});
    }
  }
  // Whether heads are one or two a warp depends on the number of tokens.
  cases.push_back(cases[2]);
  cases.back().sequences[2] = {0, 211};
  for (const AttentionCase& c : cases) {
    SCOPED_TRACE(c.name());
    const AttentionData data(c);
    for (Backend* backend : all_backends()) {
      SCOPED_TRACE(backend->detail());
      AttentionRun together(*backend, c, data), alone(*backend, c, data);
      const AttentionResult want = together.run();
      const auto append_alone = [&](const TestBatch& batch, const Matrix& qkv) {
        Matrix queries(batch.batch.size(), c.heads * c.head_dim);
        for (size_t s = 0; s < batch.pages.size(); ++s) {
          const SequenceSlice& slice = batch.batch.sequences[s];
          for (int64_t t = slice.first_token; t < slice.first_token + slice.token_count; ++t) {
            Matrix row(1, qkv.cols);
            std::ranges::copy(qkv.row(t), row.values.begin());
            const auto q = alone.append(single_token(batch, s, t - slice.first_token), row);
            std::ranges::copy(read_output(*backend, *q, 1).values, queries.row(t).begin());
          }
        }
        return queries;
      };
      append_alone(data.past, data.past_qkv);
      const Matrix queries = append_alone(data.now, data.qkv);
      expect_same(queries.values, want.q.values);
      const auto q = make_input(*backend, queries);
      expect_same(alone.attend(data.now, *q).values, want.out.values);
    }
    if (testing::Test::HasFailure()) return;
  }
}

TEST(RopeAppendKv, LayersPagesAndSlotsAreSeparate) {
  constexpr int64_t kTokens = 40, kHeadDim = 64, kCols = 4 * kHeadDim;
  for (const KvFormat& format :
       {KvFormat{}, KvFormat{.kind = KvKind::kF16}, KvFormat{.kind = KvKind::kInt, .bits = 3},
        KvFormat{.kind = KvKind::kInt, .bits = 4}, KvFormat{.kind = KvKind::kInt, .bits = 8}}) {
    SCOPED_TRACE(describe(format));
    const SequenceSpec sequence = {0, kTokens};
    const TestBatch batch = make_batch({&sequence, 1}, 0, 71);
    const std::vector<float> cos_sin = make_cos_sin(kTokens, kHeadDim);
    for (Backend* backend : all_backends()) {
      SCOPED_TRACE(backend->detail());
      auto cache = backend->make_kv_cache({.layers = 3,
                                           .kv_heads = 1,
                                           .head_dim = kHeadDim,
                                           .pages = batch.page_count,
                                           .format = format});
      ASSERT_TRUE(cache.ok()) << cache.status().message();
      for (int64_t layer = 0; layer < 3; ++layer) {
        const auto qkv =
            make_input(*backend, random_matrix(kTokens, kCols, 72 + static_cast<uint64_t>(layer)));
        const auto q = make_output(*backend, kTokens, 2 * kHeadDim);
        backend->rope_append_kv({.layer = layer,
                                 .batch = &batch.batch,
                                 .qkv = qkv.get(),
                                 .q = q.get(),
                                 .heads = 2,
                                 .cos_sin = cos_sin,
                                 .rotary_dim = kHeadDim,
                                 .cache = cache->get()});
      }
      for (int64_t layer = 0; layer < 3; ++layer) {
        const Matrix qkv = random_matrix(kTokens, kCols, 72 + static_cast<uint64_t>(layer));
        const auto q = make_input(*backend, Matrix(kTokens, 2 * kHeadDim));
        const auto out = make_output(*backend, kTokens, 2 * kHeadDim);
        backend->paged_attention({.layer = layer,
                                  .batch = &batch.batch,
                                  .q = q.get(),
                                  .out = out.get(),
                                  .heads = 2,
                                  .scale = 1.0f,
                                  .window = 1,
                                  .cache = cache->get()});
        const Matrix got = read_output(*backend, *out, kTokens);
        for (int64_t t = 0; t < kTokens; ++t) {
          const auto v = qkv.row(t).subspan(3 * kHeadDim);
          const std::vector<double> want = round_trip({v.begin(), v.end()}, format);
          for (int64_t j = 0; j < got.cols; ++j) {
            // Attention of several tokens may round values to halves.
            const double value = want[static_cast<size_t>(j % kHeadDim)];
            ASSERT_NEAR(got.at(t, j), value, tolerance(want) + 0x1p-11 * std::abs(value))
                << "layer " << layer << ", token " << t << ", column " << j;
          }
        }
      }
    }
  }
}

TEST(KvCacheShape, PageBytes) {
  KvCacheShape shape = {.layers = 3, .kv_heads = 2, .head_dim = 64, .pages = 10};
  const int64_t vectors = 3 * 2 * 2 * 16;  // layers, K and V, heads, tokens
  EXPECT_EQ(page_bytes(shape), vectors * 64 * 4);
  shape.format.kind = KvKind::kF16;
  EXPECT_EQ(page_bytes(shape), vectors * 64 * 2);
  shape.format.kind = KvKind::kInt;
  EXPECT_EQ(page_bytes(shape), vectors * (32 + 4));
  shape.format.bits = 3;  // in nibbles
  EXPECT_EQ(page_bytes(shape), vectors * (32 + 4));
  shape.format.bits = 8;
  EXPECT_EQ(page_bytes(shape), vectors * (64 + 4));
}

}  // namespace
}  // namespace atom
