// What the engine needs of a model: to run batches, one after another, perhaps while the engine
// goes on. The decoder is one (decoder_runner.h), the tests' integers another.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "ops/batch.h"

namespace atom {

struct RunnerLimits {
  int64_t vocab = 0;
  int64_t max_tokens = 0;      // of a batch
  int64_t max_logit_rows = 0;  // of a batch
  int64_t pages = 0;           // of the KV cache
  int64_t context = 0;         // tokens of the longest sequence, without the constant prefix
  int64_t prefix_tokens = 0;   // constant tokens before every sequence; they take no pages of its
  std::vector<int32_t> eos_ids;
  // True: start() returns while the batch still runs. False: start() may leave all work to wait().
  bool overlaps = false;
};

class Runner {
 public:
  virtual ~Runner() = default;
  virtual const RunnerLimits& limits() const = 0;

  // Begins to run a batch, after those started before. What the batch points to (pages) need only
  // live until start() returns. REQUIRES: the last batch was waited for; its sizes are within the
  // limits.
  virtual Status start(const Batch& batch) = 0;
  // Waits for the batch; yields its logits [R, V], a row for each of batch.logit_rows, which the
  // caller may overwrite and which live until the next start(). After an error, here or in start(),
  // the pages of the batch's new tokens hold anything, and the same batch may be tried again.
  virtual Result<std::span<float>> wait() = 0;
};

}  // namespace atom
