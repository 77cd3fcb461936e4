// Attention over KV pages: work is cut into items (a KV head, a run of query tokens, a run of keys)
// whose shape does not depend on the number of threads; items that share queries are merged after.
#pragma once

#include <vector>

#include "backend/cpu/kv_cache.h"
#include "backend/cpu/page_angles.h"
#include "ops/backend.h"

namespace atom::cpu {

struct AttentionItem {
  int64_t sequence = 0;
  int64_t kv_head = 0;
  int64_t token = 0;  // first query token, within its sequence's slice
  int64_t tokens = 0;
  int64_t key = 0, key_end = 0;  // prefix tokens count as keys 0 ..
  int64_t partial = -1;  // where its sums go for merging; -1: no other item has these queries
};

// Buffers that live on between calls.
struct AttentionWorkspace {
  std::vector<AttentionItem> items;
  std::vector<int64_t> merges;  // first item of each run of items to be merged
  AlignedBuffer<float> partials;
  PageAngles angles;
};

void paged_attention(const Kernels& kernels, const AttentionArgs& args,
                     AttentionWorkspace& workspace);
void rope_append_kv(const Kernels& kernels, const RopeAppendArgs& args);

}  // namespace atom::cpu
