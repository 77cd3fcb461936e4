#include <numeric>
#include <vector>

#include "backend/cuda/attention/attention.h"
#include "backend/cuda/bench/bench.h"
#include "base/random.h"

namespace atom::cuda::bench {
namespace {

constexpr int kHeadDim = 128;
constexpr KvFormat kInt4 = {.kind = KvKind::kInt, .bits = 4};
constexpr KvFormat kInt8 = {.kind = KvKind::kInt, .bits = 8};
constexpr KvFormat kF16 = {.kind = KvKind::kF16};

struct Sequences {
  int count, tokens, heads, kv_heads;
};

struct Decode {
  Timing timing;
  double bytes = 0;  // of the cache
};

// One new token for each sequence, whose pages lie in random order.
Result<Decode> decode(const Sequences& s, const KvFormat& format, int samples) {
  const int pages = (s.tokens + 15) / 16;
  const PageLayout layout = PageLayout::of(format, kHeadDim);
  const int64_t record = layout.bytes();
  const int64_t cache_bytes = record * s.kv_heads * pages * s.count;
  const int copies = rotations(cache_bytes);
  // Halves are legal as codes, scales and F16 elements alike.
  std::vector<DeviceArray<uint8_t>> caches;
  for (int i = 0; i < copies; ++i) {
    caches.push_back(ATOM_TRY(random_halves(cache_bytes / 2, static_cast<uint64_t>(1 + i))));
  }
  std::vector<int32_t> table(static_cast<size_t>(s.count * pages));
  std::iota(table.begin(), table.end(), 0);
  Random random(1);
  for (size_t i = table.size(); i > 1; --i) {
    std::swap(table[i - 1], table[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
  }
  std::vector<int32_t> counts, past, offsets, rows;
  for (int i = 0; i < s.count; ++i) {
    counts.push_back(1);
    past.push_back(s.tokens - 1);
    offsets.push_back(i * pages);
    rows.push_back(i);
  }
  const auto device_table = ATOM_TRY(DeviceArray<int32_t>::copy_of(table));
  const auto device_counts = ATOM_TRY(DeviceArray<int32_t>::copy_of(counts));
  const auto device_past = ATOM_TRY(DeviceArray<int32_t>::copy_of(past));
  const auto device_offsets = ATOM_TRY(DeviceArray<int32_t>::copy_of(offsets));
  const auto device_rows = ATOM_TRY(DeviceArray<int32_t>::copy_of(rows));
  std::vector<attention::DecodeItem> items;
  for (int i = 0; i < s.count; ++i) {
    items.push_back({.past = s.tokens - 1, .page_offset = i * pages, .row = i});
  }
  const auto device_items = ATOM_TRY(DeviceArray<attention::DecodeItem>::copy_of(items));
  const auto q = ATOM_TRY(random_floats(int64_t{s.count} * s.heads * kHeadDim, 2));
  auto out = ATOM_TRY(DeviceArray<float>::allocate(q.size()));
  auto workspace = ATOM_TRY(DeviceArray<uint8_t>::allocate(attention_workspace_bytes()));
  workspace.fill_bytes(0);
  const auto run = [&](int copy, cudaStream_t stream) {
    launch_attention(
        {.q = q.data(),
         .out = out.data(),
         .sequences = {.pages = device_table.data(),
                       .page_offset = device_offsets.data(),
                       .past = device_past.data(),
                       .count = device_counts.data(),
                       .row = device_rows.data()},
         .cache = {.records = caches[static_cast<size_t>(copy)].data(),
                   .page_stride = record * s.kv_heads,
                   .record_bytes = static_cast<int>(record),
                   .layout = layout,
                   .kv_heads = s.kv_heads},
         .heads = s.heads,
         .scale = 0.088f},
        {.decode = device_items.data(), .decode_items = s.count, .longest_decode = s.tokens},
        workspace.data(), stream);
  };
  return Decode{.timing = time_us(copies, run, samples), .bytes = static_cast<double>(cache_bytes)};
}

}  // namespace

Status bench_attention(const Run& run) {
  for (const Sequences& s :
       {Sequences{8, 1024, 32, 32}, Sequences{16, 1024, 32, 32}, Sequences{32, 1024, 32, 32},
        Sequences{64, 1024, 32, 32}, Sequences{128, 1024, 32, 32}, Sequences{64, 8192, 32, 8},
        Sequences{64, 2048, 64, 8}, Sequences{1, 32768, 32, 8}}) {
    const Decode int4 = ATOM_TRY(decode(s, kInt4, run.options.samples));
    const Decode int8 = ATOM_TRY(decode(s, kInt8, run.options.samples));
    const Decode f16 = ATOM_TRY(decode(s, kF16, run.options.samples));
    KernelFigure figure = run.figure(
        "attention",
        fmt::format("{} sequences of {}, {}/{} heads", s.count, s.tokens, s.heads, s.kv_heads),
        "decode int4", int4.timing, 4.0 * s.count * s.tokens * s.heads * kHeadDim, int4.bytes);
    figure.baselines = {{.name = "int8_cache", .us = int8.timing.median},
                        {.name = "f16_cache", .us = f16.timing.median}};
    ATOM_TRY(run.each(figure));
  }
  return {};
}

}  // namespace atom::cuda::bench
