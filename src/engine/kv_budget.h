// How many pages a KV cache gets where its user does not say.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "ops/backend.h"

namespace atom {

struct KvBudget {
  int64_t page_bytes = 0;
  int64_t context = 0;        // tokens of the longest sequence
  int64_t max_sequences = 0;  // that run at once
  BackendMemory memory = {};  // once weights and buffers are in it
};

struct KvPages {
  int64_t pages = 0;
  int64_t cache_pages = 0;  // EngineOptions::cache_pages
};

// On a device with memory of its own: room for all sequences at full length, where nine tenths of
// what is free allow it. Fails (kOutOfMemory) where they do not hold one such sequence. In the
// host's memory, which is for other programs, too: room for eight, in a quarter of what is free; of
// this two for the prefix cache to fill.
Result<KvPages> default_kv_pages(const KvBudget& budget);

}  // namespace atom
