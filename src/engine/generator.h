// Generating text with one sequence at a time, for the command line: the engine's parts, driven by
// the calling thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "engine/engine_core.h"
#include "engine/request.h"
#include "model/decoder.h"

namespace atom {

struct GenerateOptions {
  int64_t max_tokens = 256;
  SamplingParams sampling = {};
  bool ignore_eos = false;  // go on to max_tokens whatever comes (benchmarks)
  std::shared_ptr<const TokenConstraint> constraint = {};  // what the output has to be, or null
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

  // Calls on_token with each token as it is chosen, until an end of generation (kStop), until it
  // returns false (kStop too), or until max_tokens or the context is reached (kLength). Reuses the
  // full pages of keys and values that the prompt has in common with earlier ones. Fails on an
  // empty prompt, one that leaves no room in the context, and (kCancelled) on Ctrl-C.
  Result<Generation> generate(std::span<const int32_t> prompt, const GenerateOptions& options,
                              const std::function<bool(int32_t)>& on_token);

 private:
  explicit Generator(std::unique_ptr<EngineCore> core) : core_(std::move(core)) {}

  std::unique_ptr<EngineCore> core_;
  RequestId last_id_ = 0;
};

}  // namespace atom
