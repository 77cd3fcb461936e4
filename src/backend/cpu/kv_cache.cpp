#include "backend/cpu/kv_cache.h"

#include <algorithm>

#include "ops/numerics.h"

namespace atom::cpu {
namespace {

// The four F16 arrays of an integer block.
enum ScalePlane { kKScale, kKMin, kVScale, kVMin };

uint16_t* scale_plane(const KvLayout& layout, uint8_t* block, ScalePlane plane) {
  return reinterpret_cast<uint16_t*>(block + layout.scales_offset) + plane * kPageTokens;
}
void put_nibble(uint8_t& byte, int shift, uint8_t code) {
  byte = static_cast<uint8_t>((byte & (0xf0 >> shift)) | (code << shift));
}

// Element i of a float vector goes to plane[first + i * stride].
void store_floats(KvKind kind, const float* from, int64_t count, uint8_t* plane, int64_t first,
                  int64_t stride) {
  for (int64_t i = 0; i < count; ++i) {
    if (kind == KvKind::kF32) {
      reinterpret_cast<float*>(plane)[first + i * stride] = from[i];
    } else {
      reinterpret_cast<uint16_t*>(plane)[first + i * stride] = f32_to_f16(from[i]);
    }
  }
}

}  // namespace

KvLayout KvLayout::of(const KvFormat& format, int64_t head_dim) {
  KvLayout layout;
  layout.kind = format.kind;
  layout.head_dim = head_dim;
  layout.padded_dim = round_up(head_dim, 16);
  if (format.kind == KvKind::kInt) {
    layout.nibbles = format.bits != 8;
    layout.plane_bytes = kPageTokens * layout.padded_dim / (layout.nibbles ? 2 : 1);
    layout.scales_offset = 2 * layout.plane_bytes;
    layout.block_bytes =
        layout.scales_offset + 4 * kPageTokens * static_cast<int64_t>(sizeof(uint16_t));
  } else {
    layout.plane_bytes = kPageTokens * head_dim * (format.kind == KvKind::kF32 ? 4 : 2);
    layout.block_bytes = round_up(2 * layout.plane_bytes, kCacheLine);
  }
  return layout;
}

Result<std::unique_ptr<CpuKvCache>> CpuKvCache::create(const KvCacheShape& shape) {
  ATOM_TRY(validate(shape.format, shape.head_dim));
  constexpr int64_t kMost = int64_t{1} << 31;  // of each extent: products stay within int64
  if (shape.layers <= 0 || shape.kv_heads <= 0 || shape.pages < 0 || shape.prefix_tokens < 0 ||
      shape.layers > 1 << 16 || shape.kv_heads > 1 << 16 || shape.head_dim > 1 << 16 ||
      shape.pages > kMost || shape.prefix_tokens > kMost) {
    return error(ErrorCode::kInvalidArgument,
                 "kv cache: bad shape: {} layers, {} kv heads, head_dim {}, {} pages, {} prefix",
                 shape.layers, shape.kv_heads, shape.head_dim, shape.pages, shape.prefix_tokens);
  }
  std::unique_ptr<CpuKvCache> cache(new CpuKvCache(shape));
  const auto wanted = static_cast<__int128>(shape.layers) * shape.pages * shape.kv_heads *
                      cache->layout_.block_bytes;
  const auto prefix = static_cast<__int128>(shape.layers) * cache->prefix_size();
  if (wanted > INT64_MAX / 4 || prefix > INT64_MAX / 16 ||
      !cache->blocks_.allocate(static_cast<int64_t>(wanted)) ||
      !cache->prefix_k_.allocate(static_cast<int64_t>(prefix)) ||
      !cache->prefix_v_.allocate(static_cast<int64_t>(prefix))) {
    return error(ErrorCode::kOutOfMemory, "kv cache: no memory for {} pages", shape.pages);
  }
  return cache;
}

void CpuKvCache::set_prefix(int64_t layer, std::span<const float> k, std::span<const float> v) {
  ATOM_CHECK(layer >= 0 && layer < shape_.layers, "layer out of range");
  const auto size = static_cast<size_t>(prefix_size());
  ATOM_CHECK(k.size() == size && v.size() == size, "wrong prefix size");
  std::copy(k.begin(), k.end(), prefix_k_.data() + layer * prefix_size());
  std::copy(v.begin(), v.end(), prefix_v_.data() + layer * prefix_size());
}

void store_kv(const Kernels& kernels, const KvLayout& layout, int bits, int64_t t, const float* k,
              const float* v, uint8_t* codes, uint8_t* block) {
  const int64_t dim = layout.head_dim;
  uint8_t* v_plane = block + layout.plane_bytes;
  if (layout.kind != KvKind::kInt) {
    store_floats(layout.kind, k, dim, block, t, kPageTokens);
    store_floats(layout.kind, v, dim, v_plane, t * dim, 1);
    return;
  }
  KvRange range = kernels.quantize_kv(k, dim, bits, codes);
  scale_plane(layout, block, kKScale)[t] = range.scale_bits;
  scale_plane(layout, block, kKMin)[t] = range.min_bits;
  for (int64_t d = 0; d < dim; ++d) {
    uint8_t& byte = block[layout.k_code(t, d)];
    if (layout.nibbles) {
      put_nibble(byte, d % 8 < 4 ? 0 : 4, codes[d]);
    } else {
      byte = codes[d];
    }
  }
  range = kernels.quantize_kv(v, dim, bits, codes);
  scale_plane(layout, block, kVScale)[t] = range.scale_bits;
  scale_plane(layout, block, kVMin)[t] = range.min_bits;
  for (int64_t d = 0; d < dim; ++d) {
    uint8_t& byte = v_plane[layout.v_code(t, d)];
    if (layout.nibbles) {
      put_nibble(byte, t % 8 < 4 ? 0 : 4, codes[d]);
    } else {
      byte = codes[d];
    }
  }
}

}  // namespace atom::cpu
