// How much an engine takes on.
#pragma once

#include <cstdint>
#include <limits>

namespace atom {

struct EngineOptions {
  int64_t max_sequences = 64;  // that run at once; at most the runner's logit rows
  int64_t max_batch_tokens =
      512;                   // of a step: one for each sequence that generates, the rest for
                             // chunks of prompts; at most the runner's, at least max_sequences
  int64_t context = 0;       // tokens of prompt and output together; 0: all that fits
  bool prefix_cache = true;  // requests share pages with equal beginnings
  // Pages beyond so many are touched only for sequences that run, not to keep what others left.
  int64_t cache_pages = std::numeric_limits<int64_t>::max();
  int64_t max_waiting_requests = 1024;     // beyond these submit() rejects
  int64_t max_waiting_tokens = 4'000'000;  // of waiting prompts
};

}  // namespace atom
