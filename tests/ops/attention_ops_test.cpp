// paged_attention on mixtures of sequences, and the shapes and formats that models have.
#include <algorithm>

#include "base/parallel.h"
#include "ops/attention_fixture.h"

namespace atom {
namespace {

// Queries take part in no codes, but are the same few float operations everywhere.
constexpr double kQueryLimit = 1e-13;
// Scores and sums in float: a relative error of some 2^-24 * sqrt(DH) a score, |score| up to a few
// dozen, becomes one of the weights; NMSE below 1e-9. A wrong mask, page or code costs over 1e-4.
constexpr double kAttentionLimit = 1e-6;
// Scores of a few hundred from queries in halves are off by some 2^-12 * 300 / sqrt(DH).
constexpr double kPeakedHalvesLimit = 1e-5;

void compare_with_ref(const AttentionCase& c) {
  const bool peaked = c.gain > 1.0f;
  SCOPED_TRACE(c.name());
  const AttentionData data(c);
  const AttentionResult want = AttentionRun(ref_backend(), c, data).run();
  for (Backend* backend : other_backends()) {
    if (!supports(*backend, c.format)) continue;
    SCOPED_TRACE(backend->detail());
    const AttentionResult got = AttentionRun(*backend, c, data).run();
    {
      SCOPED_TRACE("q");
      expect_close(got.q, want.q, kQueryLimit);
    }
    SCOPED_TRACE("out");
    expect_close(got.out, want.out,
                 peaked && attends_in_halves(*backend) ? kPeakedHalvesLimit : kAttentionLimit);
  }
}

const std::vector<SequenceSpec> kMixture = {{0, 1}, {5, 1}, {16, 3}, {0, 40}, {37, 17}, {300, 1}};

TEST(Attention, EveryFormatOnAMixtureOfSequences) {
  int64_t prefix = 0;
  for (const KvFormat& format : kv_formats(64)) {
    compare_with_ref(
        {.sequences = kMixture, .format = format, .prefix_tokens = prefix, .head_norms = true});
    prefix = 1 - prefix;
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Attention, EveryHeadDimensionAndGrouping) {
  for (const int64_t head_dim : {32, 64, 72, 80, 96, 128, 256}) {
    for (const int64_t group : {1, 3, 4, 8}) {
      for (const KvFormat& format :
           {KvFormat{}, KvFormat{.kind = KvKind::kF16}, KvFormat{.kind = KvKind::kInt, .bits = 4},
            KvFormat{.kind = KvKind::kInt, .bits = 8}}) {
        const bool common = format.kind == KvKind::kInt && format.bits == 4;
        if (!common && group != 3) continue;
        compare_with_ref({.sequences = {{21, 2}, {0, 5}},
                          .format = format,
                          .heads = group * (head_dim > 96 ? 1 : 2),
                          .kv_heads = head_dim > 96 ? 1 : 2,
                          .head_dim = head_dim});
      }
    }
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Attention, EveryLengthAroundPageBoundaries) {
  const KvFormat int4 = {.kind = KvKind::kInt, .bits = 4};
  for (const int64_t past : {0, 1, 14, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128}) {
    for (const int64_t added : {1, 2, 16, 17}) {
      for (const KvFormat& format : {KvFormat{}, int4}) {
        compare_with_ref(
            {.sequences = {{past, added}}, .format = format, .heads = 3, .kv_heads = 1});
      }
    }
  }
}

// Long enough that a backend may split one query's keys among threads.
TEST(Attention, LongContexts) {
  for (const int64_t window : {0, 700}) {
    for (const KvFormat& format : {KvFormat{}, KvFormat{.kind = KvKind::kInt, .bits = 4},
                                   KvFormat{.kind = KvKind::kInt, .bits = 4, .pre_rope = true}}) {
      compare_with_ref({.sequences = {{1100, 1}, {511, 2}, {530, 4}, {600, 9}},
                        .format = format,
                        .heads = 3,
                        .kv_heads = 1,
                        .prefix_tokens = 1,
                        .window = window});
    }
  }
}

TEST(Attention, SlidingWindows) {
  for (const int64_t window : {1, 2, 16, 17, 40, 1000}) {
    for (const int64_t prefix : {0, 2}) {
      for (const KvFormat& format : {KvFormat{}, KvFormat{.kind = KvKind::kInt, .bits = 4},
                                     KvFormat{.kind = KvKind::kInt, .bits = 4, .pre_rope = true}}) {
        compare_with_ref({.sequences = {{37, 3}, {0, 20}, {1, 1}},
                          .format = format,
                          .prefix_tokens = prefix,
                          .window = window});
      }
    }
  }
}

TEST(Attention, PartialRotary) {
  for (const int64_t rotary_dim : {2, 32, 48}) {
    for (const bool pre_rope : {false, true}) {
      compare_with_ref({.sequences = {{20, 3}},
                        .format = {.kind = KvKind::kInt, .bits = 4, .pre_rope = pre_rope},
                        .rotary_dim = rotary_dim,
                        .prefix_tokens = 1});
    }
  }
}

TEST(Attention, PeakedSoftmax) {
  // Scores of a few hundred: one key takes nearly all the weight, and exponents must not overflow.
  for (const KvFormat& format : kv_formats(64)) {
    compare_with_ref({.sequences = {{50, 3}, {0, 9}}, .format = format, .gain = 6.0f});
  }
}

TEST(Attention, ResultsDoNotDependOnTheNumberOfThreads) {
  for (const KvFormat& format : {KvFormat{}, KvFormat{.kind = KvKind::kInt, .bits = 4}}) {
    const AttentionCase c = {.sequences = kMixture, .format = format, .prefix_tokens = 1};
    const AttentionData data(c);
    for (Backend* backend : all_backends()) {
      SCOPED_TRACE(backend->detail());
      set_thread_count(1);
      const AttentionResult want = AttentionRun(*backend, c, data).run();
      for (const int threads : {2, 5}) {
        set_thread_count(threads);
        const AttentionResult got = AttentionRun(*backend, c, data).run();
        expect_same(got.q.values, want.q.values);
        expect_same(got.out.values, want.out.values);
      }
      set_thread_count(0);
    }
  }
}

// On a GPU sequences with one new token may run beside a longer chunk, straight behind the kernel
// that writes queries and pages: nobody may begin before it, nor see what is not finished.
TEST(Attention, SingleTokensBesideALongerChunk) {
  for (const KvFormat& format :
       {KvFormat{.kind = KvKind::kF16}, KvFormat{.kind = KvKind::kInt, .bits = 4}}) {
    const AttentionCase c = {.sequences = {{5, 1}, {700, 90}, {160, 1}, {0, 2}, {31, 1}},
                             .format = format,
                             .head_dim = 128};
    const AttentionData data(c);
    const Matrix want = AttentionRun(ref_backend(), c, data).run().out;
    for (Backend* backend : other_backends()) {
      SCOPED_TRACE(backend->detail());
      AttentionRun run(*backend, c, data);
      run.append(data.past, data.past_qkv);
      for (int round = 0; round < 5; ++round) {
        const auto q = run.append(data.now, data.qkv);
        expect_close(run.attend(data.now, *q), want, kAttentionLimit);
      }
    }
  }
}

// --- closed forms, on ref as on the others

// Chunks of any size are the same computation. Queries of a chunk may be blocked differently, which
// moves sums by a rounding.
TEST(Attention, ChunkedPrefillEqualsOnePass) {
  for (const KvFormat& format :
       {KvFormat{}, KvFormat{.kind = KvKind::kInt, .bits = 4, .hadamard = true}}) {
    const AttentionCase whole = {.sequences = {{0, 57}}, .format = format, .prefix_tokens = 1};
    const AttentionData data(whole);
    for (Backend* backend : all_backends()) {
      SCOPED_TRACE(backend->detail());
      const Matrix want = AttentionRun(*backend, whole, data).run().out;
      AttentionRun run(*backend, whole, data);
      Matrix got(57, want.cols);
      int64_t past = 0;
      for (const int64_t added : {1, 20, 11, 1, 1, 16, 7}) {
        TestBatch chunk;
        chunk.batch.tokens.assign(static_cast<size_t>(added), 0);
        for (int64_t i = 0; i < added; ++i) {
          chunk.batch.positions.push_back(static_cast<int32_t>(1 + past + i));
        }
        chunk.batch.sequences.push_back(
            {.first_token = 0, .token_count = added, .past = past, .pages = data.now.pages[0]});
        Matrix qkv(added, data.qkv.cols);
        std::copy_n(data.qkv.row(past).begin(), qkv.values.size(), qkv.values.begin());
        const Matrix out = run.attend(chunk, *run.append(chunk, qkv));
        std::ranges::copy(out.values, got.row(past).begin());
        past += added;
      }
      ASSERT_EQ(past, 57);
      expect_close(got, want, attends_in_halves(*backend) ? kAttentionLimit : 1e-12);
    }
  }
}

// With q = 0 every visible key has the same weight: the output is the mean of the visible values,
// which shows the mask, the window, the prefix and the head grouping.
TEST(Attention, ZeroQueriesAverageTheVisibleValues) {
  for (const KvFormat& format : {KvFormat{}, KvFormat{.pre_rope = true}}) {
    for (const int64_t window : {0, 1, 4, 20}) {
      const AttentionCase c = {.sequences = {{18, 5}, {0, 3}},
                               .format = format,
                               .heads = 6,
                               .kv_heads = 2,
                               .prefix_tokens = 2,
                               .window = window};
      SCOPED_TRACE(c.name());
      const AttentionData data(c);
      const auto value = [&](size_t s, int64_t token, int64_t kv_head, int64_t d) -> double {
        if (token < 0) {  // the prefix
          return data.prefix_v[static_cast<size_t>(((token + 2) * 2 + kv_head) * 64 + d)];
        }
        const SequenceSlice& slice = data.now.batch.sequences[s];
        const int64_t column = (c.heads + c.kv_heads + kv_head) * 64 + d;
        // The first sequence alone has a past.
        return token < slice.past ? data.past_qkv.at(token, column)
                                  : data.qkv.at(slice.first_token + token - slice.past, column);
      };
      for (Backend* backend : all_backends()) {
        if (!supports(*backend, c.format)) continue;
        SCOPED_TRACE(backend->detail());
        AttentionRun run(*backend, c, data);
        run.append(data.past, data.past_qkv);
        run.append(data.now, data.qkv);
        const auto zeros = make_input(*backend, Matrix(data.now.batch.size(), c.heads * 64));
        const Matrix out = run.attend(data.now, *zeros);
        for (size_t s = 0; s < 2; ++s) {
          const SequenceSlice& slice = data.now.batch.sequences[s];
          for (int64_t i = 0; i < slice.token_count; ++i) {
            const int64_t last = slice.past + i;
            const int64_t first = window == 0 ? -2 : std::max<int64_t>(-2, last - window + 1);
            for (int64_t column = 0; column < out.cols; column += 7) {
              double mean = 0;
              for (int64_t token = first; token <= last; ++token) {
                mean += value(s, token, column / 64 / 3, column % 64);
              }
              mean /= static_cast<double>(last - first + 1);
              ASSERT_NEAR(out.at(slice.first_token + i, column), mean, 2e-6)
                  << "sequence " << s << ", token " << i << ", column " << column;
            }
          }
        }
      }
    }
  }
}

// Rotating Q and K alike by a Hadamard matrix and subtracting a constant from K change no output.
TEST(Attention, HadamardAndMeanCancel) {
  AttentionCase c = {.sequences = {{20, 3}, {0, 5}}};
  const Matrix plain = [&] {
    const AttentionData data(c);
    return AttentionRun(ref_backend(), c, data).run().out;
  }();
  for (const bool centered : {false, true}) {
    for (const bool hadamard : {false, true}) {
      c.format = {.centered = centered, .hadamard = hadamard};
      const AttentionData data(c);
      for (Backend* backend : all_backends()) {
        SCOPED_TRACE(backend->detail());
        expect_close(AttentionRun(*backend, c, data).run().out, plain, 1e-9);
      }
    }
  }
}

// In floats it makes no difference whether K is rotated when stored or when read.
TEST(Attention, RopeBeforeOrAfterTheCache) {
  AttentionCase c = {.sequences = {{20, 3}, {0, 5}}, .head_norms = true};
  const AttentionData data(c);
  const Matrix after = AttentionRun(ref_backend(), c, data).run().out;
  c.format.pre_rope = true;
  for (Backend* backend : all_backends()) {
    if (!supports(*backend, c.format)) continue;
    SCOPED_TRACE(backend->detail());
    expect_close(AttentionRun(*backend, c, data).run().out, after, 1e-9);
  }
}

}  // namespace
}  // namespace atom
