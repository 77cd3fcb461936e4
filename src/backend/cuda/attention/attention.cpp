#include "backend/cuda/attention/attention.h"

#include <algorithm>
#include <limits>

#include "backend/cuda/runtime/device.h"

namespace atom::cuda {
namespace {

constexpr int kMostSplits = 128;  // whose factors a CTA keeps in shared memory
constexpr int kMostHeadDim = 256;

// Pairs of a sequence and a KV head, times splits, that the workspace holds partial results for;
// more CTAs than this need no splitting.
int64_t most_partials() { return 16 * int64_t{device_info().sms}; }
int64_t counter_bytes() { return (most_partials() * 4 + 255) / 256 * 256; }

int64_t most_splits(int64_t pairs) {
  return std::min<int64_t>(kMostSplits, std::max<int64_t>(1, most_partials() / pairs));
}

// Parts that each sequence is cut into, so that all multiprocessors have equal work.
int choose_splits(int64_t pairs, int64_t pages) {
  const int64_t sms = device_info().sms;
  const int64_t most = std::min(std::max<int64_t>(1, pages / 8), most_splits(pairs));
  int64_t best = 1;
  double best_cost = std::numeric_limits<double>::max();
  for (int64_t splits = 1; splits <= most; ++splits) {
    // Pages of the busiest multiprocessor; below two CTAs it cannot keep enough bytes in flight.
    const int64_t ctas = (pairs * splits + sms - 1) / sms;
    const int64_t share = (pages + splits - 1) / splits;
    const double merge =
        splits <= attention::kMostCluster ? 4.0 : 1.5 * static_cast<double>(splits);
    const double cost = static_cast<double>(std::max<int64_t>(ctas, 2) * share) +
                        24.0 * static_cast<double>(ctas) + (splits > 1 ? merge : 0.0);
    if (cost < best_cost) {
      best_cost = cost;
      best = splits;
    }
  }
  return static_cast<int>(best);
}

}  // namespace

int64_t attention_workspace_bytes() {
  return counter_bytes() +
         most_partials() * attention::partial_floats(attention::kGroup, kMostHeadDim) * 4;
}

void launch_attention(attention::Params params, const AttentionWork& work, void* workspace,
                      cudaStream_t stream) {
  const int group = params.heads / params.cache.kv_heads;
  const attention::Launcher decode = attention::find_decode(params.cache.layout);
  const attention::ChunkLauncher chunk = attention::find_chunk(params.cache.layout);
  if (work.exact || decode == nullptr || chunk == nullptr || group > attention::kGroup) {
    params.token_sequence = work.token_sequences;
    params.item_count = static_cast<int>(work.tokens);
    attention::launch_exact(params, stream);
    return;
  }
  // Chunks first: their few, long CTAs are done by the time that decode attention, which starts
  // beside them, has the chip to itself.
  if (!work.chunks.empty()) {
    const int columns = attention::chunk_columns(params.cache.layout.head_dim);
    int tiles = 0;
    for (const int32_t count : work.chunks) tiles += (count * group + columns - 1) / columns;
    params.items = work.chunk_list;
    params.item_count = static_cast<int>(work.chunks.size());
    chunk(params, tiles, stream);
  }
  if (work.decode_items > 0) {
    ATOM_CHECK(params.cache.page_stride <= UINT32_MAX, "a page of more than 4 GB");
    const int64_t pairs = work.decode_items * params.cache.kv_heads;
    const int64_t tokens = params.window == 0
                               ? work.longest_decode
                               : std::min<int64_t>(work.longest_decode, params.window);
    params.items = work.decode_list;
    params.item_count = static_cast<int>(work.decode_items);
    params.splits = work.splits > 0
                        ? static_cast<int>(std::min<int64_t>(work.splits, most_splits(pairs)))
                        : choose_splits(pairs, (tokens + 15) / 16);
    // Splits that fit in a cluster are merged there, more through memory.
    params.cluster = params.splits <= attention::kMostCluster ? params.splits : 1;
    params.beside_chunks = !work.chunks.empty();
    auto* bytes = static_cast<uint8_t*>(workspace);
    params.counters = reinterpret_cast<uint32_t*>(bytes);
    params.partials = reinterpret_cast<float*>(bytes + counter_bytes());
    decode(params, stream);
  }
}

}  // namespace atom::cuda
