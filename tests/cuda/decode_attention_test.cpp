#include <algorithm>

#include "backend/cuda/attention/decode.h"
#include "backend/cuda/attention/page_format.h"
#include "base/random.h"
#include "cuda/device_test.h"
#include "ops/numerics.h"

namespace atom::cuda {
namespace {

struct Case {
  std::vector<int> lengths;
  int heads, kv_heads, head_dim;
  CachePages format = CachePages::kInt4;
  DType out_type = DType::kF16;
  float value_scale = 1.0f;  // of V, to meet large and tiny scales
  int splits = 5;            // of the later rounds; the first lets the kernel choose
  double limit = 3e-7;       // weights are rounded to f16 once: 2e-8 beside the output's rounding
};

// Puts one nibble or half into a page's record.
template <int kHeadDim>
void put(CachePages format, uint8_t* record, bool key, int token, int channel, uint32_t bits) {
  if (format == CachePages::kInt4) {
    using F = Int4PageFormat<kHeadDim>;
    const PagePlace at = key ? F::key(token, channel) : F::value(token, channel);
    record[at.byte] =
        static_cast<uint8_t>((record[at.byte] & ~(0xf << at.shift)) | bits << at.shift);
  } else {
    using F = HalfPageFormat<kHeadDim>;
    const int at = key ? F::key(token, channel) : F::value(token, channel);
    record[at] = static_cast<uint8_t>(bits);
    record[at + 1] = static_cast<uint8_t>(bits >> 8);
  }
}

template <int kHeadDim>
void check(const Case& c) {
  ASSERT_EQ(c.head_dim, kHeadDim);
  Random random(static_cast<uint64_t>(c.lengths.size() * 7 + c.lengths[0]));
  const auto sequences = static_cast<int>(c.lengths.size());
  const int longest = *std::max_element(c.lengths.begin(), c.lengths.end());
  const int max_pages = (longest + 15) / 16;
  const int record_bytes = page_record_bytes(c.format, kHeadDim);
  const int64_t page_stride = int64_t{record_bytes} * c.kv_heads + 256;
  // Pages in random order; unwritten slots hold 0xff: NaN as halves and as scales.
  std::vector<int32_t> table(static_cast<size_t>(sequences * max_pages), -1);
  std::vector<int32_t> order(static_cast<size_t>(sequences * max_pages));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  for (size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
  }
  std::vector<uint8_t> cache(static_cast<size_t>(page_stride) * order.size(), 0xff);
  std::vector<uint16_t> q;
  std::vector<double> want;
  const float scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));
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
          std::vector<float> x(kHeadDim);
          const double shift = random.normal();  // so that minima matter
          for (float& v : x) v = static_cast<float>(random.normal() + shift);
          if (which == 1) {
            for (float& v : x) v *= c.value_scale;
          }
          if (t % 37 == 5) std::fill(x.begin(), x.end(), x[0]);  // a scale of zero
          const int32_t page = table[static_cast<size_t>(b * max_pages + t / 16)];
          uint8_t* record = cache.data() + page * page_stride + kh * record_bytes;
          if (c.format == CachePages::kInt4) {
            std::vector<uint8_t> codes(kHeadDim);
            const numerics::KvScale s = numerics::quantize_kv(x, 4, codes.data());
            using F = Int4PageFormat<kHeadDim>;
            std::memcpy(record + (which == 0 ? F::key_scale(t % 16) : F::value_scale(t % 16)), &s,
                        4);
            for (int d = 0; d < kHeadDim; ++d) {
              const uint8_t code = codes[static_cast<size_t>(d)];
              put<kHeadDim>(c.format, record, which == 0, t % 16, d, code);
              kv[which].push_back(static_cast<double>(f16_to_f32(s.min)) +
                                  code * static_cast<double>(f16_to_f32(s.scale)));
            }
          } else {
            for (int d = 0; d < kHeadDim; ++d) {
              const uint16_t half = f32_to_f16(x[static_cast<size_t>(d)]);
              put<kHeadDim>(c.format, record, which == 0, t % 16, d, half);
              kv[which].push_back(f16_to_f32(half));
            }
          }
        }
      }
      for (int h = 0; h < group; ++h) {
        std::vector<double> query(kHeadDim), score(static_cast<size_t>(length)), out(kHeadDim);
        for (double& v : query) {
          const uint16_t half = f32_to_f16(static_cast<float>(random.normal()));
          q.push_back(half);
          v = f16_to_f32(half);
        }
        double top = -1e300, total = 0;
        for (int t = 0; t < length; ++t) {
          double dot = 0;
          for (int d = 0; d < kHeadDim; ++d) {
            dot += query[static_cast<size_t>(d)] * kv[0][static_cast<size_t>(t * kHeadDim + d)];
          }
          score[static_cast<size_t>(t)] = dot * static_cast<double>(scale);
          top = std::max(top, score[static_cast<size_t>(t)]);
        }
        for (int t = 0; t < length; ++t) {
          const double e = std::exp(score[static_cast<size_t>(t)] - top);
          total += e;
          for (int d = 0; d < kHeadDim; ++d) {
            out[static_cast<size_t>(d)] += e * kv[1][static_cast<size_t>(t * kHeadDim + d)];
          }
        }
        for (const double v : out) want.push_back(v / total);
      }
    }
  }
  const auto d_cache = to_device(cache);
  const auto d_q = to_device(q);
  const auto d_table = to_device(table);
  const auto d_lengths = to_device(std::vector<int32_t>(c.lengths.begin(), c.lengths.end()));
  auto workspace =
      DeviceArray<uint8_t>::allocate(decode_workspace_bytes(sequences, c.heads, kHeadDim)).value();
  workspace.fill_bytes(0);
  for (int round = 0; round < 3; ++round) {
    PoisonedOutput out(int64_t{sequences} * c.heads * kHeadDim, c.out_type);
    const DecodeArgs args{.sequences = sequences,
                          .heads = c.heads,
                          .kv_heads = c.kv_heads,
                          .head_dim = kHeadDim,
                          .format = c.format,
                          .q = d_q.data(),
                          .out = out.data(),
                          .out_type = c.out_type,
                          .cache = d_cache.data(),
                          .page_stride = page_stride,
                          .pages = d_table.data(),
                          .lengths = d_lengths.data(),
                          .max_pages = max_pages,
                          .scale = scale,
                          .splits = round == 0 ? 0 : c.splits,
                          .longest = longest,
                          .workspace = workspace.data()};
    const Status status = launch_decode_attention(args, nullptr);
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_LE(nmse(out.values(), want), c.limit) << "round " << round;
  }
}

TEST(DecodeAttention, OneToken) { check<128>({{1}, 1, 1, 128}); }
TEST(DecodeAttention, OddLengths) { check<128>({{3, 17, 129, 16, 1}, 4, 4, 128}); }
TEST(DecodeAttention, Grouped4) { check<128>({{100, 1000, 31}, 8, 2, 128}); }
TEST(DecodeAttention, Grouped8) { check<128>({{500, 77}, 16, 2, 128}); }
TEST(DecodeAttention, Grouped3) { check<128>({{65, 260}, 9, 3, 128}); }
TEST(DecodeAttention, ManySequences) {
  std::vector<int> lengths;
  for (int i = 0; i < 80; ++i) lengths.push_back(1 + 13 * i);
  check<128>({lengths, 8, 8, 128});
}
TEST(DecodeAttention, LongSplit) {
  check<128>({{20011}, 8, 2, 128, CachePages::kInt4, DType::kF16, 1.0f, 40});
}
// The tensor cores truncate their sums, and thousands of positive codes in one of them nearly
// cancel against the minima when V is noise around zero.
TEST(DecodeAttention, LongUnsplit) {
  check<128>({{8192}, 8, 2, 128, CachePages::kInt4, DType::kF16, 1.0f, 1, 2e-6});
}
TEST(DecodeAttention, LargeValues) {
  check<128>({{300}, 4, 1, 128, CachePages::kInt4, DType::kF32, 3000.0f});
}
TEST(DecodeAttention, TinyValues) {
  check<128>({{300}, 4, 1, 128, CachePages::kInt4, DType::kF32, 1e-3f});
}
TEST(DecodeAttention, HeadDim64) { check<64>({{3, 200, 1111}, 9, 3, 64}); }
TEST(DecodeAttention, F16Cache) { check<128>({{3, 200, 1111}, 8, 2, 128, CachePages::kF16}); }
TEST(DecodeAttention, F16Cache64) { check<64>({{3, 200, 1111}, 4, 4, 64, CachePages::kF16}); }

}  // namespace
}  // namespace atom::cuda
