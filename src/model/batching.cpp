#include "model/batching.h"

#include <numeric>

#include "base/check.h"

namespace atom {

void add_sequence(Batch& batch, std::span<const int32_t> tokens, int64_t past,
                  std::span<const int32_t> pages, int64_t prefix_tokens) {
  const auto count = static_cast<int64_t>(tokens.size());
  batch.sequences.push_back(
      {.first_token = batch.size(), .token_count = count, .past = past, .pages = pages});
  batch.tokens.insert(batch.tokens.end(), tokens.begin(), tokens.end());
  for (int64_t t = 0; t < count; ++t) {
    batch.positions.push_back(static_cast<int32_t>(prefix_tokens + past + t));
  }
}

WindowBatcher::WindowBatcher(int64_t max_windows, int64_t context, int64_t prefix_tokens)
    : context_(context),
      prefix_tokens_(prefix_tokens),
      window_pages_((context + kPageTokens - 1) / kPageTokens),
      pages_(static_cast<size_t>(max_windows * window_pages_)) {
  std::iota(pages_.begin(), pages_.end(), 0);
}

const Batch& WindowBatcher::chunk(std::span<const int32_t> tokens, int64_t begin, int64_t end) {
  const auto windows = static_cast<int64_t>(tokens.size()) / context_;
  ATOM_CHECK(windows * window_pages_ <= pages(), "more windows than the cache has room for");
  ATOM_CHECK(0 <= begin && begin < end && end <= context_, "a chunk of the window");
  batch_.clear();
  for (int64_t w = 0; w < windows; ++w) {
    add_sequence(
        batch_,
        tokens.subspan(static_cast<size_t>(w * context_ + begin), static_cast<size_t>(end - begin)),
        begin,
        std::span(pages_).subspan(static_cast<size_t>(w * window_pages_),
                                  static_cast<size_t>(window_pages_)),
        prefix_tokens_);
  }
  return batch_;
}

}  // namespace atom
