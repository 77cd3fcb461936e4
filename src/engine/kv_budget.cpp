#include "engine/kv_budget.h"

#include <algorithm>

namespace atom {
namespace {

constexpr int64_t kHostSequences = 8;
constexpr int64_t kHostCacheSequences = 2;
constexpr int64_t kHostShare = 4;  // one part in so many
// Left on a device for what it allocates later: graphs, workspaces of libraries, fragments.
constexpr int64_t kDeviceReserve = 10;  // one part in so many

double mib(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

Result<KvPages> default_kv_pages(const KvBudget& budget) {
  const int64_t a_sequence = (budget.context + kPageTokens - 1) / kPageTokens;
  const int64_t free = budget.memory.free_bytes;
  if (!budget.memory.own) {
    const int64_t wanted = a_sequence * std::min(budget.max_sequences, kHostSequences);
    return KvPages{
        .pages = free == 0 ? wanted
                           : std::clamp(free / kHostShare / budget.page_bytes, int64_t{1}, wanted),
        .cache_pages = a_sequence * kHostCacheSequences};
  }
  const int64_t room = free - free / kDeviceReserve;
  if (room / budget.page_bytes < a_sequence) {
    return error(ErrorCode::kOutOfMemory,
                 "the model leaves {:.0f} MiB of the device's memory for the KV cache, and one "
                 "sequence of {} tokens needs {:.0f} MiB: lower --context or set --kv-memory",
                 mib(room), budget.context, mib(a_sequence * budget.page_bytes));
  }
  const int64_t pages = std::min(room / budget.page_bytes, a_sequence * budget.max_sequences);
  return KvPages{.pages = pages, .cache_pages = pages};
}

}  // namespace atom
