// Putting batches together.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/batch.h"

namespace atom {

// Appends new tokens of one sequence, which has `past` tokens in the cache already; pages must
// outlive the batch. Positions go on after the prefix and the past. Wants no logits.
void add_sequence(Batch& batch, std::span<const int32_t> tokens, int64_t past,
                  std::span<const int32_t> pages, int64_t prefix_tokens);

// Windows of equal length that run side by side through one cache, window w in pages
// [w * P, (w + 1) * P): for perplexity and calibration.
class WindowBatcher {
 public:
  WindowBatcher(int64_t max_windows, int64_t context, int64_t prefix_tokens);

  int64_t pages() const { return static_cast<int64_t>(pages_.size()); }

  // The batch of tokens [begin, end) of each window; tokens [windows, context]. Chunks of the same
  // windows must be run in order. Valid until the next call.
  const Batch& chunk(std::span<const int32_t> tokens, int64_t begin, int64_t end);

 private:
  int64_t context_;
  int64_t prefix_tokens_;
  int64_t window_pages_;
  std::vector<int32_t> pages_;
  Batch batch_;
};

}  // namespace atom
