// The tokens of one forward pass: several new tokens from each of several sequences, packed one
// sequence after another. A prompt chunk, a single decode step and a mixture are all this.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/token_draw.h"

namespace atom {

// Tokens of a KV page; a page holds every layer's K and V of this many consecutive tokens.
inline constexpr int64_t kPageTokens = 16;

// One sequence's share of a batch.
struct SequenceSlice {
  int64_t first_token = 0;         // index into the batch of its first new token
  int64_t token_count = 0;         // new tokens, at least 1
  int64_t past = 0;                // tokens of this sequence already in the cache
  std::span<const int32_t> pages;  // page indices covering past + token_count tokens, in order
};

struct Batch {
  std::vector<int32_t> tokens;           // [T] token ids; see also EmbedArgs::earlier
  std::vector<int32_t> positions;        // [T] RoPE positions (prefix tokens come before: the first
                                         // token of a sequence has position prefix_tokens)
  std::vector<SequenceSlice> sequences;  // cover [0, T) without gaps
  std::vector<int32_t> logit_rows;  // indices into the batch whose logits are wanted, ascending
  std::vector<TokenDraw> draws;     // [R] how tokens are chosen from them; empty: all by argmax

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  // Empties the batch and keeps its memory.
  void clear() {
    tokens.clear();
    positions.clear();
    sequences.clear();
    logit_rows.clear();
    draws.clear();
  }
};

}  // namespace atom
