// The two operators that touch the KV cache. Arguments were checked by the caller.
#pragma once

#include "ops/backend.h"

namespace atom::ref {

void rope_append_kv(const RopeAppendArgs& args);
void paged_attention(const AttentionArgs& args);

}  // namespace atom::ref
