// What goes into the engine and what comes out: plain data, and the sink that receives it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/sampler.h"
#include "engine/stats.h"
#include "engine/token_constraint.h"

namespace atom {

class RequestSink;

// A number that the engine gives each accepted request, from 1 on.
using RequestId = uint64_t;

inline constexpr int kMaxLogprobs = 20;   // alternatives that can be asked for
inline constexpr int kMaxChoices = 128;   // outputs of one request
inline constexpr int kMaxPriority = 100;  // and -100 at least
inline constexpr int kNoLogprobs = -1;
inline constexpr float kLeastLogprob = -9999.0f;

struct Request {
  std::vector<int32_t> prompt = {};  // at least one token, all within the vocabulary
  SamplingParams sampling = {};  // choice 0 draws with the seed, choice i with one derived from it
  int64_t max_tokens = 16;       // of each output; 0: only the prompt runs. The context may end it
                                 // sooner (FinishReason::kLength as well)
  int choices = 1;               // outputs, which share the prompt's pages. For best_of, ask for
                                 // as many and rank them by ChoiceEnd::logprob_sum
  std::vector<int32_t> stop_ids = {};  // end an output like the model's own ends of generation
  bool ignore_eos = false;             // the model's own ends are tokens like others
  int priority = 0;            // -100..100; a request goes before up to 32 earlier ones for each
                               // level that its priority is higher
  int logprobs = kNoLogprobs;  // 0..20: report each output token's logprob and that many of the
                               // most likely alternatives
  int prompt_logprobs = kNoLogprobs;  // the same for the prompt's tokens (echo)
  bool score = false;       // compute ChoiceEnd::logprob_sum though no logprobs are asked for
  uint64_t cache_salt = 0;  // only requests with equal salts share pages of the KV cache
  std::shared_ptr<const TokenConstraint> constraint = {};  // where outputs start from, or null
  std::shared_ptr<RequestSink> sink = {};                  // receives the events; never null
};

// A token's place in the distribution that the model gave for it, before penalties, temperature and
// all other parameters (as vLLM's raw_logprobs). At least kLeastLogprob, so that JSON can carry it.
struct TokenLogprob {
  int32_t token = -1;
  float logprob = 0;  // natural logarithm
};

struct ScoredToken {
  int32_t token = -1;
  float logprob = 0;  // where logprobs were asked for; of a prompt's first token: NaN
  std::vector<TokenLogprob> top = {};  // most likely first, as many as asked for
};

enum class FinishReason : uint8_t {
  kStop,       // an end of generation or stop id, which is not part of the output; or the sink
               // wanted no more
  kLength,     // max_tokens, or the context is full
  kCancelled,  // cancel(), or the engine went away
  kError,
};
const char* finish_reason_name(FinishReason reason);  // "stop"

struct ChoiceEnd {
  FinishReason reason = FinishReason::kStop;
  Status status;           // why, with kError
  ScoredToken stop = {};   // the end of generation or stop id that ended it, else token -1
  int64_t tokens = 0;      // generated, without a stop id
  double logprob_sum = 0;  // of its tokens, where logprobs or score asked for it
};

// What one request took. Times that never came are EngineClock::time_point{}.
struct RequestEnd {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompt, not computed because their pages were in the cache
  int64_t generated_tokens = 0;  // all choices
  int64_t preemptions = 0;
  EngineClock::time_point arrival = {};
  EngineClock::time_point started = {};      // first part of the prompt began to run
  EngineClock::time_point first_token = {};  // of any choice
  EngineClock::time_point finished = {};
};

// Receives one request's events. All calls come from the engine's thread, one at a time and in
// order; they must not block, and may call Engine::submit, cancel and stop_choice. The engine drops
// its reference after on_end.
class RequestSink {
 public:
  virtual ~RequestSink() = default;

  // Tokens of the prompt from index `first` on, where prompt_logprobs asked for them; comes in
  // chunks, before any on_token.
  virtual void on_prompt(int64_t first, std::span<const ScoredToken> tokens) {
    static_cast<void>(first);
    static_cast<void>(tokens);
  }
  // A token of an output. False: this output has all it needs (a stop string, say) and ends with
  // kStop.
  virtual bool on_token(int choice, const ScoredToken& token) = 0;
  // No more tokens of this output. Comes once for each choice.
  virtual void on_choice_end(int choice, const ChoiceEnd& end) = 0;
  // The last call.
  virtual void on_end(const RequestEnd& end) = 0;
};

}  // namespace atom
