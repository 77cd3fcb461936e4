#include "engine/generator.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/interrupt.h"

namespace atom {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Result<std::unique_ptr<Generator>> Generator::create(Decoder& decoder, int64_t context) {
  const int64_t room = decoder.limits().positions - decoder.weights().prefix_tokens;
  if (context < 1 || context > room) {
    return error(ErrorCode::kInvalidArgument, "a context of {} tokens is not within 1..{}", context,
                 room);
  }
  auto cache = ATOM_TRY(decoder.make_cache((context + kPageTokens - 1) / kPageTokens));
  auto logits = ATOM_TRY(decoder.backend().make_tensor(1, decoder.config().vocab));
  return std::unique_ptr<Generator>(
      new Generator(decoder, context, std::move(cache), std::move(logits)));
}

Generator::Generator(Decoder& decoder, int64_t context, std::unique_ptr<KvCache> cache,
                     std::unique_ptr<Tensor> logits)
    : decoder_(decoder),
      context_(context),
      cache_(std::move(cache)),
      logits_(std::move(logits)),
      host_logits_(static_cast<size_t>(decoder.config().vocab)),
      pool_(cache_->shape().pages),
      sequence_(pool_) {}

Result<Generation> Generator::generate(std::span<const int32_t> prompt,
                                       const GenerateOptions& options,
                                       const std::function<bool(int32_t)>& on_token) {
  const auto start = std::chrono::steady_clock::now();
  const auto length = static_cast<int64_t>(prompt.size());
  if (length == 0) return error(ErrorCode::kInvalidArgument, "the prompt is empty");
  if (length >= context_) {
    return error(ErrorCode::kInvalidArgument,
                 "the prompt has {} tokens, which leaves no room in a context of {}", length,
                 context_);
  }
  ATOM_TRY(validate(options.sampling));
  Sampler sampler(options.sampling, prompt);
  const std::vector<int32_t>& eos_ids = decoder_.config().eos_ids;

  Generation result;
  result.prompt_tokens = length;
  result.reused_tokens = rewind_to_common_start(prompt);
  sequence_.append(prompt.subspan(static_cast<size_t>(result.reused_tokens)));
  auto decode_start = start;  // meaningful once there is a first token
  const int64_t most = std::min(options.max_tokens, context_ - length);
  while (static_cast<int64_t>(result.tokens.size()) < most) {
    ATOM_TRY(run_pending());
    const int32_t token = sampler.sample(host_logits_);
    if (result.prefill_seconds == 0) {
      result.prefill_seconds = seconds_since(start);
      decode_start = std::chrono::steady_clock::now();
    }
    if (!options.ignore_eos && std::find(eos_ids.begin(), eos_ids.end(), token) != eos_ids.end()) {
      result.finish = FinishReason::kStop;
      break;
    }
    result.tokens.push_back(token);
    sequence_.append({&token, 1});
    if (!on_token(token)) {
      result.finish = FinishReason::kCallback;
      break;
    }
  }
  if (result.prefill_seconds > 0) result.decode_seconds = seconds_since(decode_start);
  return result;
}

// Keeps the cached tokens that the prompt starts with, all but its last, whose logits are wanted.
int64_t Generator::rewind_to_common_start(std::span<const int32_t> prompt) {
  const std::vector<int32_t>& cached = sequence_.tokens();
  const auto most = std::min(prompt.size() - 1, static_cast<size_t>(sequence_.past()));
  size_t common = 0;
  while (common < most && cached[common] == prompt[common]) ++common;
  sequence_.truncate(static_cast<int64_t>(common));
  return static_cast<int64_t>(common);
}

// Runs all tokens that wait, in chunks; host_logits_ are then those after the last one.
Status Generator::run_pending() {
  while (!sequence_.pending().empty()) {
    ATOM_TRY(check_interrupted());
    const auto waiting = static_cast<int64_t>(sequence_.pending().size());
    const int64_t count = std::min(waiting, decoder_.limits().max_tokens);
    batch_.clear();
    // The pool covers the context, which generate() never exceeds.
    ATOM_CHECK(sequence_.schedule(count, decoder_.weights().prefix_tokens, batch_),
               "the only sequence ran out of pages");
    if (count == waiting) batch_.logit_rows.push_back(static_cast<int32_t>(count - 1));
    ATOM_TRY(decoder_.forward(batch_, *cache_, *logits_));
    sequence_.advance(count);
  }
  decoder_.backend().read(*logits_, 1, host_logits_);
  return {};
}

}  // namespace atom
