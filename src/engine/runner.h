// What the engine needs of a model: to run batches, one after another, perhaps while the engine
// goes on and queues the next one. The decoder is one (decoder_runner.h), the tests' integers
// another.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "ops/backend.h"
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
  // True: start() returns while the batch still runs, and a second one may be started before the
  // first was waited for. In that one, token id -1 - r stands for the token chosen from the
  // first one's row r.
  bool overlaps = false;
};

class Runner {
 public:
  virtual ~Runner() = default;
  virtual const RunnerLimits& limits() const = 0;

  // Begins to run a batch, after those started before. Of its first whole_rows logit rows all
  // logits are wanted, of the others the token that the batch's draws choose. What the batch points
  // to (pages) need only live until start() returns. REQUIRES: sizes are within the limits; the
  // last batch was waited for, or it is the only one that was not, no logits of it are wanted, and
  // this runner overlaps.
  virtual Status start(const Batch& batch, int64_t whole_rows) = 0;
  // Waits for the first batch that was not waited for. Its output lives until the next start().
  // After an error, here or in start(), the pages of the batch's new tokens hold anything, and the
  // same batch may be tried again; a batch started after it must be waited for first, and its
  // output is worthless.
  virtual Result<StepOutput> wait() = 0;
};

}  // namespace atom
