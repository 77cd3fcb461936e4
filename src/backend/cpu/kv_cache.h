// KV pages as attention reads them. A block holds the K and V of one head in one layer of one page,
// 16 tokens, contiguous and aligned; blocks stand as [layer][page][kv head].
//
// Float kinds: K [DH][16 tokens], then V [16][DH].
//
// Integer kinds: K codes, V codes, then F16 K scales[16], K minima[16], V scales[16], V minima[16].
// DH is padded with zero codes to a multiple of 16 (P channels). Both code planes come in steps of
// 64 bytes, four reduction indices for each of 16 lanes, which is what a dot product of bytes into
// 32-bit lanes (and an AMX tile) wants: K sums over channels with a token a lane, V sums over
// tokens with a channel a lane.
//
//     K, 8 bits: step d/4    lane t    byte d%4                       V, 8 bits: step (d/16)*4 +
//     t/4 K, nibbles: step d/8   lane t    byte d%4  half (d%8)/4            lane d%16  byte t%4
//                                                  V, nibbles: step (d/16)*2 + t/8  half (t%8)/4
#pragma once

#include "backend/cpu/aligned_buffer.h"
#include "backend/cpu/kernels.h"
#include "ops/backend.h"

namespace atom::cpu {

// Sizes and offsets within a block.
struct KvLayout {
  KvKind kind = KvKind::kF32;
  bool nibbles = false;
  int64_t head_dim = 0;
  int64_t padded_dim = 0;     // P; head_dim for float kinds
  int64_t plane_bytes = 0;    // of the K (or V) codes or values
  int64_t scales_offset = 0;  // of the four F16 arrays
  int64_t block_bytes = 0;

  static KvLayout of(const KvFormat& format, int64_t head_dim);

  int64_t k_code(int64_t t, int64_t d) const {
    return nibbles ? d / 8 * 64 + t * 4 + d % 4 : d / 4 * 64 + t * 4 + d % 4;
  }
  int64_t v_code(int64_t t, int64_t d) const {
    return nibbles ? (d / 16 * 2 + t / 8) * 64 + d % 16 * 4 + t % 4
                   : (d / 16 * 4 + t / 4) * 64 + d % 16 * 4 + t % 4;
  }
};

class CpuKvCache final : public KvCache {
 public:
  static Result<std::unique_ptr<CpuKvCache>> create(const KvCacheShape& shape);

  const KvCacheShape& shape() const override { return shape_; }
  const KvLayout& layout() const { return layout_; }
  void set_prefix(int64_t layer, std::span<const float> k, std::span<const float> v) override;

  uint8_t* block(int64_t layer, int64_t page, int64_t kv_head) {
    return blocks_.data() + block_index(layer, page, kv_head) * layout_.block_bytes;
  }
  const uint8_t* block(int64_t layer, int64_t page, int64_t kv_head) const {
    return blocks_.data() + block_index(layer, page, kv_head) * layout_.block_bytes;
  }
  // [prefix_tokens, KH, DH] of one layer.
  const float* prefix_k(int64_t layer) const { return prefix_k_.data() + layer * prefix_size(); }
  const float* prefix_v(int64_t layer) const { return prefix_v_.data() + layer * prefix_size(); }

 private:
  explicit CpuKvCache(const KvCacheShape& shape)
      : shape_(shape), layout_(KvLayout::of(shape.format, shape.head_dim)) {}
  int64_t block_index(int64_t layer, int64_t page, int64_t kv_head) const {
    return (layer * shape_.pages + page) * shape_.kv_heads + kv_head;
  }
  int64_t prefix_size() const { return shape_.prefix_tokens * shape_.kv_heads * shape_.head_dim; }

  KvCacheShape shape_;
  KvLayout layout_;
  AlignedBuffer<uint8_t> blocks_;
  AlignedBuffer<float> prefix_k_, prefix_v_;
};

// Writes one token's K and V vectors of one head ([DH] each) to slot t of a block. codes: scratch
// of head_dim bytes. Two tokens of the same block must not be stored at the same time.
void store_kv(const Kernels& kernels, const KvLayout& layout, int bits, int64_t t, const float* k,
              const float* v, uint8_t* codes, uint8_t* block);

}  // namespace atom::cpu
