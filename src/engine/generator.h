// Generating text with one sequence at a time, for the command line.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "engine/page_pool.h"
#include "engine/sampler.h"
#include "model/decoder.h"

namespace atom {

enum class FinishReason : uint8_t {
  kStop,      // an end-of-sequence token, which is not part of the output
  kLength,    // max_tokens, or the context is full
  kCallback,  // on_token returned false
};

struct GenerateOptions {
  int64_t max_tokens = 256;
  SamplingParams sampling = {};
  bool ignore_eos = false;  // go on to max_tokens whatever comes (benchmarks)
};

struct Generation {
  std::vector<int32_t> tokens;  // without the prompt
  FinishReason finish = FinishReason::kLength;
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;   // of the prompt, whose keys and values were still in the cache
  double prefill_seconds = 0;  // until the first token was chosen
  double decode_seconds = 0;   // for all tokens after the first
};

class Generator {
 public:
  // context: tokens that prompt and output may have together. The decoder must outlive it.
  static Result<std::unique_ptr<Generator>> create(Decoder& decoder, int64_t context);

  // Calls on_token with each token as it is chosen, until one of FinishReason's. Starts from the
  // cached keys and values as far as the prompt begins like the last prompt and its output. Fails
  // on an empty prompt, one that leaves no room in the context, and (kCancelled) on Ctrl-C.
  Result<Generation> generate(std::span<const int32_t> prompt, const GenerateOptions& options,
                              const std::function<bool(int32_t)>& on_token);

 private:
  Generator(Decoder& decoder, int64_t context, std::unique_ptr<KvCache> cache,
            std::unique_ptr<Tensor> logits);
  int64_t rewind_to_common_start(std::span<const int32_t> prompt);
  Status run_pending();

  Decoder& decoder_;
  int64_t context_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Tensor> logits_;  // [1, V]
  std::vector<float> host_logits_;  // [V], after the last token run
  PagePool pool_;
  Sequence sequence_;
  Batch batch_;
};

}  // namespace atom
