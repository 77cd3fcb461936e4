// What the engine's core keeps of its requests and their outputs.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/engine_core.h"
#include "engine/request.h"
#include "engine/sampler.h"
#include "engine/sequence.h"
#include "engine/token_constraint.h"

namespace atom {

struct EngineCore::Output : Sequence {
  Output(ActiveRequest& own_request, int own_choice, const SamplingParams& params,
         std::span<const int32_t> prompt)
      : request(own_request), choice(own_choice), sampler(params, prompt) {}

  ActiveRequest& request;  // lives until the request's last output has ended
  int choice;
  Sampler sampler;
  std::unique_ptr<TokenConstraint> constraint;
  int64_t scored = 0;    // tokens of the prompt that were reported with their logprobs
  int64_t last_row = 0;  // its last logit row in the last step that it ran in
  ChoiceEnd end;
  EngineClock::time_point last_token = {};

  // What choose() found, for commit().
  std::vector<ScoredToken> prompt_scores;
  ScoredToken chosen;
  Status failure;
};

struct EngineCore::ActiveRequest {
  RequestId id = 0;
  Request request;
  int64_t arrival = 0;  // counts requests
  std::vector<std::shared_ptr<Output>>
      outputs;   // by choice; null: waits for the first one's prompt
  int open = 0;  // outputs whose end was not delivered
  bool started = false;
  bool cancelled = false, failed = false;
  RequestEnd end;

  bool scores_output() const { return request.logprobs >= 0 || request.score; }
  // Whether the runner chooses its tokens: logits as they come decide, and are of no other use.
  bool runner_chooses() const {
    return keeps_logits(request.sampling) && request.constraint == nullptr && !scores_output() &&
           request.prompt_logprobs < 0;
  }
};

struct EngineCore::Delivery {
  std::shared_ptr<Output> output;
  std::vector<ScoredToken> prompt = {};  // scores of its tokens from prompt_first on, or empty
  int64_t prompt_first = 0;
  bool has_token = false;
  ScoredToken token = {};
};

}  // namespace atom
