#include "backend/cuda/attention/attention.h"

#include <algorithm>
#include <limits>

#include "backend/cuda/attention/decode_kernels.h"
#include "backend/cuda/runtime/device.h"

namespace atom::cuda {
namespace {

constexpr int kMostSplits = 128;  // whose factors a CTA keeps in shared memory
constexpr int kMostHeadDim = 256;
// Of a warp's ring where all CTAs run at once: queries come behind all pages that were asked for
// before them, and there it is queries that everything waits for.
constexpr int kStagesAtOnce = 3;

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

// Few sequences are bound by latency: CTAs of kMostWarps then, one a multiprocessor or, where even
// unsplit sequences are more than that, two. The parts that each sequence is cut into for that; 0
// where sequences are many or long.
int choose_few_splits(int64_t pairs, int64_t pages) {
  constexpr int64_t kMostPages = 128;  // of a CTA; more CTAs are worth a merge in memory then
  const int64_t sms = device_info().sms;
  if (pairs > 2 * sms) return 0;
  int64_t splits = std::clamp<int64_t>(pages / 8, 1, attention::kMostCluster);
  // Not every multiprocessor finds neighbours for a cluster of more than two.
  while (splits > 1 && pairs * splits > (splits > 2 ? sms * 9 / 10 : sms)) --splits;
  return pages <= splits * kMostPages ? static_cast<int>(splits) : 0;
}

// Records of a warp's ring: about 45 KB on their way to a CTA of kWarps.
int ring_stages(int record_bytes) {
  return record_bytes > 6000 ? 2 : record_bytes > 4096 ? 3 : record_bytes > 1500 ? 5 : 8;
}

// What depends on the work and not on the operator's arguments.
void plan_decode(attention::Params& p, const AttentionWork& work, void* workspace) {
  ATOM_CHECK(p.cache.page_stride <= UINT32_MAX, "a page of more than 4 GB");
  constexpr int64_t kMultiprocessorBytes = 228 << 10, kCtaBytes = 1 << 10;  // the latter: reserved
  const int head_dim = p.cache.layout.head_dim, record_bytes = p.cache.record_bytes;
  const int64_t pairs = work.decode_items * p.cache.kv_heads, sms = device_info().sms;
  const int64_t tokens =
      p.window == 0 ? work.longest_decode : std::min<int64_t>(work.longest_decode, p.window);
  const int64_t pages = (tokens + 15) / 16;
  p.beside_chunks = !work.chunks.empty();
  p.decode = work.decode;
  p.item_count = static_cast<int>(work.decode_items);
  p.group = p.heads / p.cache.kv_heads;

  // Beside chunks there is no room to speak of.
  const bool can = attention::has_wide_decode(head_dim, record_bytes) && !p.beside_chunks;
  const int few_splits = can ? choose_few_splits(pairs, pages) : 0;
  const bool few = work.warps == 0 ? few_splits > 0 : can && work.warps == attention::kMostWarps;
  p.splits = work.splits > 0  ? static_cast<int>(std::min<int64_t>(work.splits, most_splits(pairs)))
             : few_splits > 0 ? few_splits
                              : choose_splits(pairs, pages);
  // Splits that fit in a cluster are merged there, more through memory.
  p.cluster = p.splits <= attention::kMostCluster ? p.splits : 1;
  p.warps = few ? attention::kMostWarps : attention::kWarps;
  const int64_t share = (pages + p.splits - 1) / p.splits;
  const int64_t each = (pairs * p.splits + sms - 1) / sms;  // CTAs on a multiprocessor
  const int most = attention::decode_ctas(head_dim, p.warps);
  const bool at_once = few || (!p.beside_chunks && each > 2 && each <= most);
  const int stages = std::min(ring_stages(record_bytes), at_once ? kStagesAtOnce : INT32_MAX);
  p.stages = static_cast<int>(std::min<int64_t>(stages, (share + p.warps - 1) / p.warps));
  p.ahead = at_once ? 1 : p.stages;
  p.shared_bytes =
      attention::DecodeMemory(record_bytes, head_dim, p.group, p.warps, p.stages, p.cluster).bytes;
  if (few || (at_once && each < most)) {
    // Spread evenly: a multiprocessor has room for its part of the CTAs and no more.
    const int64_t alone = kMultiprocessorBytes / (each + 1) - kCtaBytes + 16;
    p.shared_bytes = std::max(p.shared_bytes, static_cast<int>(alone));
  }
  auto* scratch = static_cast<uint8_t*>(workspace);
  p.counters = reinterpret_cast<uint32_t*>(scratch);
  p.partials = reinterpret_cast<float*>(scratch + counter_bytes());
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
    plan_decode(params, work, workspace);
    decode(params, stream);
  }
}

}  // namespace atom::cuda
