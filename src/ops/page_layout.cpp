#include "ops/backend.h"

namespace atom {

int64_t page_bytes(const KvCacheShape& shape) {
  const KvFormat& format = shape.format;
  const int64_t vectors = shape.layers * 2 * shape.kv_heads * kPageTokens;
  switch (format.kind) {
    case KvKind::kF32:
      return vectors * shape.head_dim * 4;
    case KvKind::kF16:
      return vectors * shape.head_dim * 2;
    case KvKind::kInt:
      break;
  }
  const int64_t code_bytes = format.bits == 8 ? shape.head_dim : shape.head_dim / 2;
  return vectors * (code_bytes + 4);  // an F16 scale and an F16 minimum a vector
}

}  // namespace atom
