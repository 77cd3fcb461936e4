// A batch as the kernels see it: its arrays in GPU memory, sorted into sequences with one new token
// and with several.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/cuda/attention/attention_kernels.h"
#include "backend/cuda/kv/rope_append.h"
#include "backend/cuda/runtime/upload.h"
#include "ops/batch.h"

namespace atom::cuda {

class DeviceBatch {
 public:
  // Takes over `batch`. Sends nothing where it is the same as the last. Fails when memory is short.
  Status set(const Batch& batch, cudaStream_t stream);

  int64_t tokens() const { return tokens_; }
  // An upper bound for the longest sequence with one new token, that one included: few different
  // numbers, so that what depends on it can be recorded.
  int64_t longest_decode() const { return longest_decode_; }
  int64_t decode_items() const { return static_cast<int64_t>(decode_.size()); }
  // New tokens of each sequence with several, in chunk_list()'s order.
  const std::vector<int32_t>& chunks() const { return chunk_counts_; }

  // Changes whenever the arrays move: what was recorded with them is then void.
  const void* address() const { return upload_.data(); }
  const int32_t* positions() const { return at(Part::kPositions); }
  const int32_t* slots() const { return at(Part::kSlots); }  // page * 16 + slot
  const int32_t* token_sequences() const { return at(Part::kTokenSequence); }
  int64_t draw_count() const { return draws_; }
  // Where tokens, logit rows or draws of the batch that was taken over are, given theirs on the
  // host; null for other arrays.
  const void* find(const Batch& batch, const void* host) const;
  const attention::DecodeItem* decode() const {
    return reinterpret_cast<const attention::DecodeItem*>(upload_.data() + draws_ * kDrawInts);
  }
  const attention::ChunkItem* chunk_list() const {
    return reinterpret_cast<const attention::ChunkItem*>(decode() + decode_items());
  }
  // The tokens in tiles, see RopeAppendParams; none where no sequence has several.
  const RopeTile* tiles() const {
    return reinterpret_cast<const RopeTile*>(upload_.data() + tiles_at_);
  }
  int64_t tile_count() const { return static_cast<int64_t>(tiles_.size()); }
  attention::SequenceView sequences() const;

 private:
  // What follows the draws and room for an item a token: those of sequences with one new token,
  // then of those with several. Each but the last has room for one int a token, so that places
  // depend on the numbers of draws and tokens only.
  enum class Part {
    kTokens,
    kPositions,
    kSlots,
    kTokenSequence,
    kLogitRows,
    kPageOffset,
    kPast,
    kCount,
    kRow,
    kPages
  };
  const int32_t* at(Part part) const {
    return upload_.data() + draws_ * kDrawInts + (kItemInts + static_cast<int64_t>(part)) * tokens_;
  }

  static constexpr int64_t kDrawInts = sizeof(TokenDraw) / sizeof(int32_t);
  static constexpr int64_t kItemInts = sizeof(attention::DecodeItem) / sizeof(int32_t);

  int64_t draws_ = 0, tokens_ = 0, tiles_at_ = 0, longest_decode_ = 0;
  std::vector<attention::DecodeItem> decode_;
  std::vector<attention::ChunkItem> chunks_;
  std::vector<int32_t> chunk_counts_;
  std::vector<RopeTile> tiles_;  // behind the pages
  std::vector<int32_t> packed_, sent_;
  Upload upload_;
};

}  // namespace atom::cuda
