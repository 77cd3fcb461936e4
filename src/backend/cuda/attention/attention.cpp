#include "backend/cuda/attention/attention.h"

#include <algorithm>
#include <cstdint>

#include "backend/cuda/attention/decode_division.h"
#include "backend/cuda/attention/decode_kernels.h"
#include "backend/cuda/runtime/device.h"

namespace atom::cuda {
namespace {

constexpr int kMostHeadDim = 256;
// Of a warp's ring where all CTAs run at once: queries come behind all pages that were asked for
// before them, and there it is queries that everything waits for.
constexpr int kStagesAtOnce = 3;

int64_t counter_bytes() { return (attention::most_partials() * 4 + 255) / 256 * 256; }

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
  const bool wide = attention::has_wide_decode(head_dim, record_bytes) && !p.beside_chunks;
  attention::Division division = attention::choose_division(pairs, pages, p.group, wide);
  if (work.splits > 0) {
    const int warps = wide && work.warps == attention::kMostWarps ? work.warps : attention::kWarps;
    const int64_t splits = std::min<int64_t>(work.splits, attention::most_splits(pairs));
    division = {
        .warps = warps, .splits = splits, .cluster = attention::clusters_fit(pairs, splits, warps)};
  }
  p.warps = division.warps;
  p.splits = static_cast<int>(division.splits);
  p.cluster = division.cluster ? p.splits : 1;
  const int64_t share = (pages + p.splits - 1) / p.splits;
  const int64_t each = (pairs * p.splits + sms - 1) / sms;  // CTAs on a multiprocessor
  const int64_t most = attention::decode_ctas(head_dim, p.warps);
  const bool wide_ctas = p.warps == attention::kMostWarps;
  const bool at_once = wide_ctas || (!p.beside_chunks && each > 2 && each <= most);
  const int stages = std::min(ring_stages(record_bytes), at_once ? kStagesAtOnce : INT32_MAX);
  p.stages = static_cast<int>(std::min<int64_t>(stages, (share + p.warps - 1) / p.warps));
  p.ahead = at_once ? 1 : p.stages;
  p.shared_bytes = std::max(
      attention::DecodeMemory(record_bytes, head_dim, p.group, p.warps, p.stages, p.cluster).bytes,
      attention::partials_scratch_bytes(p.warps, p.group, p.splits / p.cluster));
  if (wide_ctas || (at_once && each < most)) {
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
  return counter_bytes() + attention::most_partials() *
                               attention::partial_floats(attention::kGroup, kMostHeadDim) * 4;
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
    params.chunks = work.chunk_list;
    params.most_ctas = device_info().sms;
    params.item_count = static_cast<int>(work.chunks.size());
    chunk(params, tiles, stream);
  }
  if (work.decode_items > 0) {
    plan_decode(params, work, workspace);
    decode(params, stream);
  }
}

}  // namespace atom::cuda
