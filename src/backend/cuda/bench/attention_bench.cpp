#include <algorithm>
#include <cstdio>
#include <numeric>
#include <vector>

#include "backend/cuda/attention/attention.h"
#include "backend/cuda/bench/bench.h"
#include "backend/cuda/bench/timing.h"
#include "base/random.h"
#include "tensor/dtype.h"

namespace atom::cuda::bench {
namespace {

constexpr KvFormat kInt4 = {.kind = KvKind::kInt, .bits = 4};
constexpr KvFormat kInt8 = {.kind = KvKind::kInt, .bits = 8};
constexpr KvFormat kF16 = {.kind = KvKind::kF16};

struct Size {
  int sequences, tokens, heads, kv_heads;
};

double decode_us(const Size& s, const KvFormat& format, double* bytes, int splits = 0) {
  constexpr int kHeadDim = 128;
  const int pages = (s.tokens + 15) / 16;
  const PageLayout layout = PageLayout::of(format, kHeadDim);
  const int64_t record = layout.bytes();
  const int64_t cache_bytes = record * s.kv_heads * pages * s.sequences;
  const int copies = rotations(cache_bytes);
  // Random halves of moderate size: legal as codes, scales and F16 elements alike.
  std::vector<uint16_t> block(1 << 20);
  Random random(1);
  for (uint16_t& h : block) h = f32_to_f16(static_cast<float>(random.normal()));
  std::vector<DeviceArray<uint8_t>> caches;
  for (int i = 0; i < copies; ++i) {
    caches.push_back(DeviceArray<uint8_t>::allocate(cache_bytes).value());
    for (int64_t at = 0; at < cache_bytes; at += int64_t{2} << 20) {
      ATOM_CUDA_CHECK(cudaMemcpy(caches.back().data() + at, block.data(),
                                 static_cast<size_t>(std::min<int64_t>(2 << 20, cache_bytes - at)),
                                 cudaMemcpyHostToDevice));
    }
  }
  std::vector<int32_t> table(static_cast<size_t>(s.sequences * pages));
  std::iota(table.begin(), table.end(), 0);
  for (size_t i = table.size(); i > 1; --i) {
    std::swap(table[i - 1], table[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
  }
  const auto d_table = DeviceArray<int32_t>::copy_of(table).value();
  std::vector<int32_t> counts, past, offsets, rows;
  for (int i = 0; i < s.sequences; ++i) {
    counts.push_back(1);
    past.push_back(s.tokens - 1);
    offsets.push_back(i * pages);
    rows.push_back(i);
  }
  const auto d_counts = DeviceArray<int32_t>::copy_of(counts).value();
  const auto d_past = DeviceArray<int32_t>::copy_of(past).value();
  const auto d_offsets = DeviceArray<int32_t>::copy_of(offsets).value();
  const auto d_rows = DeviceArray<int32_t>::copy_of(rows).value();
  std::vector<float> queries(static_cast<size_t>(s.sequences * s.heads * kHeadDim));
  for (float& v : queries) v = static_cast<float>(random.normal());
  const auto q = DeviceArray<float>::copy_of(queries).value();
  auto out = DeviceArray<float>::allocate(q.size()).value();
  auto workspace = DeviceArray<uint8_t>::allocate(attention_workspace_bytes()).value();
  workspace.fill_bytes(0);
  *bytes = static_cast<double>(cache_bytes);
  return median_us(copies, [&](int i, cudaStream_t stream) {
    launch_attention({.q = q.data(),
                      .out = out.data(),
                      .sequences = {.pages = d_table.data(),
                                    .page_offset = d_offsets.data(),
                                    .past = d_past.data(),
                                    .count = d_counts.data(),
                                    .row = d_rows.data()},
                      .cache = {.records = caches[static_cast<size_t>(i)].data(),
                                .page_stride = record * s.kv_heads,
                                .record_bytes = static_cast<int>(record),
                                .layout = layout,
                                .kv_heads = s.kv_heads},
                      .heads = s.heads,
                      .scale = 0.088f},
                     {.decode_list = d_rows.data(),
                      .decode_items = s.sequences,
                      .longest_decode = s.tokens,
                      .splits = splits},
                     workspace.data(), stream);
  });
}

}  // namespace

void bench_attention(double copy) {
  std::printf("%-28s | %9s %6s | %9s %6s | %9s %6s | %s %s\n", "sequences x tokens, H/KH",
              "int4 us", "%copy", "int8 us", "%copy", "f16 us", "%copy", "f16/int4", "int8/int4");
  for (const Size& s : {Size{128, 1024, 32, 32}, Size{64, 8192, 32, 8}, Size{1, 32768, 32, 8},
                        Size{8, 1024, 32, 32}, Size{32, 1024, 32, 32}, Size{64, 2048, 64, 8}}) {
    double int4_bytes = 0, int8_bytes = 0, f16_bytes = 0;
    const double int4 = decode_us(s, kInt4, &int4_bytes);
    const double int8 = decode_us(s, kInt8, &int8_bytes);
    const double f16 = decode_us(s, kF16, &f16_bytes);
    char name[64];
    std::snprintf(name, sizeof(name), "%d x %d, %d/%d", s.sequences, s.tokens, s.heads, s.kv_heads);
    std::printf("%-28s | %9.1f %6.1f | %9.1f %6.1f | %9.1f %6.1f | %.2f %.2f\n", name, int4,
                100 * int4_bytes * 1e-3 / int4 / copy, int8, 100 * int8_bytes * 1e-3 / int8 / copy,
                f16, 100 * f16_bytes * 1e-3 / f16 / copy, f16 / int4, int8 / int4);
    std::fflush(stdout);
  }
  for (const Size& s : {Size{1, 32768, 32, 8}, Size{8, 1024, 32, 32}, Size{64, 2048, 64, 8}}) {
    std::printf("splits of %d x %d, %d/%d:", s.sequences, s.tokens, s.heads, s.kv_heads);
    for (const int splits : {1, 2, 3, 4, 8, 16, 32, 48, 66, 99, 128}) {
      if (s.tokens / 16 / splits < 8) continue;
      double bytes = 0;
      std::printf("  %d: %.1f us", splits, decode_us(s, kInt4, &bytes, splits));
    }
    std::printf("\n");
  }
}

}  // namespace atom::cuda::bench
