#include <algorithm>

#include "base/random.h"
#include "cuda/attention_problem.h"
#include "ops/numerics.h"

namespace atom::cuda {
namespace {

struct Case {
  std::vector<int> lengths;
  int heads, kv_heads, head_dim;
  KvFormat format = kInt4;
  float value_scale = 1.0f;  // of V, to meet large and tiny scales
  int splits = 5;  // of the later rounds, with 4 and 8 warps; the first lets the launcher choose
  double limit = 3e-7;  // weights are rounded to f16 once: 2e-8
};

// Puts one nibble, byte or half into a page's record.
void put(const PageLayout& layout, uint8_t* record, bool value, int token, int channel,
         uint32_t bits) {
  const PagePlace at = layout.place(value, token, channel);
  if (layout.bits == 4) {
    record[at.byte] =
        static_cast<uint8_t>((record[at.byte] & ~(0xf << at.shift)) | bits << at.shift);
  } else {
    record[at.byte] = static_cast<uint8_t>(bits);
    if (layout.bits == 16) record[at.byte + 1] = static_cast<uint8_t>(bits >> 8);
  }
}

void check(const Case& c) {
  const int head_dim = c.head_dim;
  const PageLayout layout = PageLayout::of(c.format, head_dim);
  AttentionProblem problem = {.layout = layout, .heads = c.heads, .kv_heads = c.kv_heads};
  Random random(static_cast<uint64_t>(c.lengths.size() * 7 + c.lengths[0]));
  const auto sequences = static_cast<int>(c.lengths.size());
  const int longest = *std::max_element(c.lengths.begin(), c.lengths.end());
  const int max_pages = (longest + 15) / 16;
  const int record_bytes = layout.bytes();
  const int64_t page_stride = problem.page_stride();
  // Pages in random order; unwritten slots hold 0xff: NaN as halves and as scales.
  std::vector<int32_t>& table = problem.table;
  table.assign(static_cast<size_t>(sequences * max_pages), -1);
  std::vector<int32_t> order(static_cast<size_t>(sequences * max_pages));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  for (size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
  }
  std::vector<uint8_t>& cache = problem.cache;
  cache.assign(static_cast<size_t>(page_stride) * order.size(), 0xff);
  std::vector<float>& q = problem.q;
  std::vector<double> want;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  const int group = c.heads / c.kv_heads;
  for (int b = 0; b < sequences; ++b) {
    const int length = c.lengths[static_cast<size_t>(b)];
    for (int p = 0; p < (length + 15) / 16; ++p) {
      table[static_cast<size_t>(b * max_pages + p)] = order[static_cast<size_t>(b * max_pages + p)];
    }
    for (int kh = 0; kh < c.kv_heads; ++kh) {
      std::vector<double> kv[2];
      for (int which = 0; which < 2; ++which) {
        for (int t = 0; t < length; ++t) {
          std::vector<float> x(static_cast<size_t>(head_dim));
          const double shift = random.normal();  // so that minima matter
          for (float& v : x) v = static_cast<float>(random.normal() + shift);
          if (which == 1) {
            for (float& v : x) v *= c.value_scale;
          }
          if (t % 37 == 5) std::fill(x.begin(), x.end(), x[0]);  // a scale of zero
          const int32_t page = table[static_cast<size_t>(b * max_pages + t / 16)];
          uint8_t* record = cache.data() + page * page_stride + kh * record_bytes;
          if (c.format.kind == KvKind::kInt) {
            std::vector<uint8_t> codes(x.size());
            const numerics::KvScale s = numerics::quantize_kv(x, c.format.bits, codes.data());
            std::memcpy(record + layout.scale(which == 1, t % 16), &s, 4);
            for (int d = 0; d < head_dim; ++d) {
              const uint8_t code = codes[static_cast<size_t>(d)];
              put(layout, record, which == 1, t % 16, d, code);
              kv[which].push_back(static_cast<double>(f16_to_f32(s.min)) +
                                  code * static_cast<double>(f16_to_f32(s.scale)));
            }
          } else {
            for (int d = 0; d < head_dim; ++d) {
              const uint16_t half = f32_to_f16(x[static_cast<size_t>(d)]);
              put(layout, record, which == 1, t % 16, d, half);
              kv[which].push_back(f16_to_f32(half));
            }
          }
        }
      }
      for (int h = 0; h < group; ++h) {
        std::vector<double> query(static_cast<size_t>(head_dim)), out(query.size());
        std::vector<double> score(static_cast<size_t>(length));
        for (double& v : query) {
          q.push_back(f16_to_f32(f32_to_f16(static_cast<float>(random.normal()))));
          v = static_cast<double>(q.back());
        }
        double top = -1e300, total = 0;
        for (int t = 0; t < length; ++t) {
          double dot = 0;
          for (int d = 0; d < head_dim; ++d) {
            dot += query[static_cast<size_t>(d)] * kv[0][static_cast<size_t>(t * head_dim + d)];
          }
          score[static_cast<size_t>(t)] = dot * static_cast<double>(scale);
          top = std::max(top, score[static_cast<size_t>(t)]);
        }
        for (int t = 0; t < length; ++t) {
          const double e = std::exp(score[static_cast<size_t>(t)] - top);
          total += e;
          for (int d = 0; d < head_dim; ++d) {
            out[static_cast<size_t>(d)] += e * kv[1][static_cast<size_t>(t * head_dim + d)];
          }
        }
        for (const double v : out) want.push_back(v / total);
      }
    }
  }
  // One new token each; all others are past.
  std::vector<attention::DecodeItem> items;
  for (int b = 0; b < sequences; ++b) {
    items.push_back(
        {.past = c.lengths[static_cast<size_t>(b)] - 1, .page_offset = b * max_pages, .row = b});
    problem.offsets.push_back(items.back().page_offset);
    problem.past.push_back(items.back().past);
    problem.counts.push_back(1);
    problem.rows.push_back(b);
  }
  DeviceAttention attention(problem);
  const auto d_items = to_device(items);
  for (int round = 0; round < 3; ++round) {
    const std::vector<float> got = attention.run({.decode = d_items.data(),
                                                  .decode_items = sequences,
                                                  .longest_decode = longest,
                                                  .splits = round == 0 ? 0 : c.splits,
                                                  .warps = round == 0 ? 0 : 4 * round});
    EXPECT_LE(nmse(got, want), c.limit) << "round " << round;
  }
}

TEST(DecodeAttention, OneToken) { check({{1}, 1, 1, 128}); }
TEST(DecodeAttention, OddLengths) { check({{3, 17, 129, 16, 1}, 4, 4, 128}); }
TEST(DecodeAttention, Grouped4) { check({{100, 1000, 31}, 8, 2, 128}); }
TEST(DecodeAttention, Grouped8) { check({{500, 77}, 16, 2, 128}); }
TEST(DecodeAttention, Grouped3) { check({{65, 260}, 9, 3, 128}); }
TEST(DecodeAttention, ManySequences) {
  std::vector<int> lengths;
  for (int i = 0; i < 80; ++i) lengths.push_back(1 + 13 * i);
  check({lengths, 8, 8, 128});
}
TEST(DecodeAttention, TwoCtasAMultiprocessor) {
  std::vector<int> lengths;
  for (int i = 0; i < 25; ++i) lengths.push_back(1 + 17 * i);
  check({lengths, 8, 8, 128});
}
TEST(DecodeAttention, LongSplit) { check({{20011}, 8, 2, 128, kInt4, 1.0f, 40}); }
// Merged in memory: threads to spare for every other result and more, as many as there are
// channels, and fewer.
TEST(DecodeAttention, SplitsOfOneHead) { check({{3, 900}, 1, 1, 64, kInt4, 1.0f, 9}); }
TEST(DecodeAttention, SplitsOfThreeHeads) { check({{3, 200, 1111}, 9, 3, 96, kInt8, 1.0f, 12}); }
TEST(DecodeAttention, SplitsOfEightHeads) { check({{1300}, 16, 2, 128, kInt4, 1.0f, 33}); }
TEST(DecodeAttention, SplitsOfLargeHeads) { check({{1111}, 8, 1, 256, kInt8, 1.0f, 12}); }
TEST(DecodeAttention, MostSplits) { check({{3000}, 4, 1, 128, kInt4, 1.0f, 128}); }
// The tensor cores truncate their sums, and thousands of positive codes in one of them nearly
// cancel against the minima when V is noise around zero.
TEST(DecodeAttention, LongUnsplit) { check({{8192}, 8, 2, 128, kInt4, 1.0f, 1, 2e-6}); }
TEST(DecodeAttention, LargeValues) { check({{300}, 4, 1, 128, kInt4, 3000.0f}); }
TEST(DecodeAttention, TinyValues) { check({{300}, 4, 1, 128, kInt4, 1e-3f}); }
TEST(DecodeAttention, HeadDim64) { check({{3, 200, 1111}, 9, 3, 64}); }
TEST(DecodeAttention, Int8Cache) { check({{3, 200, 1111}, 8, 2, 128, kInt8}); }
TEST(DecodeAttention, Int8Cache64) { check({{3, 200, 1111}, 4, 4, 64, kInt8}); }
TEST(DecodeAttention, Int8Cache96) { check({{3, 200, 1111}, 4, 4, 96, kInt8}); }
TEST(DecodeAttention, Int8Cache256) { check({{3, 200, 1111}, 4, 4, 256, kInt8}); }
TEST(DecodeAttention, F16Cache) { check({{3, 200, 1111}, 8, 2, 128, kF16}); }
TEST(DecodeAttention, F16Cache64) { check({{3, 200, 1111}, 4, 4, 64, kF16}); }

}  // namespace
}  // namespace atom::cuda
