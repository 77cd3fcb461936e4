#include "engine/engine_core.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/random.h"
#include "engine/active_request.h"

namespace atom {
namespace {

// Earlier requests that one level of priority goes before.
constexpr int64_t kOvertakenPerLevel = 32;

uint64_t seed_of_choice(uint64_t seed, int choice) {
  return choice == 0 ? seed : Random(seed + static_cast<uint64_t>(choice)).next();
}

Status check_range(const char* name, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return {};
  return error(ErrorCode::kInvalidArgument, "{} = {}: must be within {}..{}", name, value, least,
               most);
}

}  // namespace

Result<std::unique_ptr<EngineCore>> EngineCore::create(std::unique_ptr<Runner> runner,
                                                       const EngineOptions& options) {
  const RunnerLimits& limits = runner->limits();
  ATOM_TRY(check_range("max_sequences", options.max_sequences, 1,
                       std::min(limits.max_logit_rows, limits.max_tokens)));
  ATOM_TRY(check_range("max_batch_tokens", options.max_batch_tokens, options.max_sequences,
                       limits.max_tokens));
  ATOM_TRY(check_range("context", options.context, 0, limits.context));
  EngineOptions resolved = options;
  if (resolved.context == 0) resolved.context = limits.context;
  resolved.context = std::min(resolved.context, limits.pages * kPageTokens);
  return std::unique_ptr<EngineCore>(new EngineCore(std::move(runner), resolved));
}

EngineCore::EngineCore(std::unique_ptr<Runner> runner, const EngineOptions& options)
    : runner_(std::move(runner)),
      options_(options),
      scheduler_({.max_sequences = options.max_sequences,
                  .max_batch_tokens = options.max_batch_tokens,
                  .max_logit_rows = runner_->limits().max_logit_rows,
                  .cache_pages = options.cache_pages},
                 runner_->limits().pages) {}

EngineCore::~EngineCore() = default;

Status EngineCore::validate(const Request& request) const {
  const RunnerLimits& limits = runner_->limits();
  const auto length = static_cast<int64_t>(request.prompt.size());
  if (length == 0) return error(ErrorCode::kInvalidArgument, "the prompt is empty");
  ATOM_TRY(check_range("max_tokens", request.max_tokens, 0, std::numeric_limits<int64_t>::max()));
  if (length + (request.max_tokens > 0 ? 1 : 0) > options_.context) {
    return error(ErrorCode::kInvalidArgument,
                 "the prompt has {} tokens, which leaves no room in a context of {}", length,
                 options_.context);
  }
  const auto in_vocabulary = [&](int32_t token) { return token >= 0 && token < limits.vocab; };
  for (const int32_t token : request.prompt) {
    if (in_vocabulary(token)) continue;
    return error(ErrorCode::kInvalidArgument, "token id {} is beyond the vocabulary of {}", token,
                 limits.vocab);
  }
  ATOM_TRY(atom::validate(request.sampling));
  for (const auto& [token, bias] : request.sampling.logit_bias) {
    if (in_vocabulary(token)) continue;
    return error(ErrorCode::kInvalidArgument,
                 "logit_bias: token id {} is beyond the vocabulary of {}", token, limits.vocab);
  }
  ATOM_TRY(check_range("n", request.choices, 1, kMaxChoices));
  ATOM_TRY(check_range("priority", request.priority, -kMaxPriority, kMaxPriority));
  ATOM_TRY(check_range("logprobs", request.logprobs, kNoLogprobs, kMaxLogprobs));
  ATOM_TRY(check_range("prompt_logprobs", request.prompt_logprobs, kNoLogprobs, kMaxLogprobs));
  return {};
}

void EngineCore::add(RequestId id, Request request, EngineClock::time_point arrival) {
  auto active = std::make_unique<ActiveRequest>();
  active->id = id;
  active->request = std::move(request);
  active->arrival = arrivals_++;
  active->outputs.resize(static_cast<size_t>(active->request.choices));
  active->open = active->request.choices;
  active->end.arrival = arrival;
  active->end.prompt_tokens = static_cast<int64_t>(active->request.prompt.size());
  ++waiting_requests_;
  waiting_prompt_tokens_ += active->end.prompt_tokens;
  const std::shared_ptr<Output> first = make_output(*active, 0);
  if (active->request.prompt_logprobs >= 0) first->scored_from = 0;
  scheduler_.add(first);
  const bool is_new = requests_.emplace(id, std::move(active)).second;
  ATOM_CHECK(is_new, "two requests of one id");
}

std::shared_ptr<EngineCore::Output> EngineCore::make_output(ActiveRequest& active, int choice) {
  const Request& request = active.request;
  SamplingParams params = request.sampling;
  params.seed = seed_of_choice(params.seed, choice);
  auto output = std::make_shared<Output>(active, choice, params, request.prompt);
  if (request.constraint != nullptr) output->constraint = request.constraint->clone();
  output->rank = {active.arrival - kOvertakenPerLevel * request.priority,
                  active.arrival * kMaxChoices + choice};
  output->tokens = request.prompt;
  output->prompt_length = active.end.prompt_tokens;
  output->limit = output->prompt_length +
                  std::min(request.max_tokens, options_.context - output->prompt_length);
  output->scored_from = output->prompt_length;
  // Without the prefix cache a request's outputs still share its prompt.
  output->root = options_.prefix_cache ? PageLink{.salt = request.cache_salt}
                                       : PageLink{.salt = active.id, .id = PageLink::kPrivate};
  active.outputs[static_cast<size_t>(choice)] = output;
  return output;
}

// Once the first output has the whole prompt in the cache, the others find it there.
void EngineCore::begin_other_choices(ActiveRequest& active) {
  for (int choice = 1; choice < active.request.choices; ++choice) {
    if (active.outputs[static_cast<size_t>(choice)] != nullptr) continue;
    scheduler_.add(make_output(active, choice));
  }
}

void EngineCore::note_start(ActiveRequest& active, int64_t cached_tokens) {
  active.started = true;
  active.end.started = EngineClock::now();
  active.end.cached_tokens = cached_tokens;
  --waiting_requests_;
  waiting_prompt_tokens_ -= active.end.prompt_tokens;
  stats_.prompt_tokens += active.end.prompt_tokens;
  stats_.cached_tokens += cached_tokens;
  stats_.queue_time.add(seconds_between(active.end.arrival, active.end.started));
  prompt_rate_.add(static_cast<double>(cached_tokens), active.end.started);
}

void EngineCore::end_output(const std::shared_ptr<Output>& output, FinishReason reason,
                            Status status) {
  scheduler_.remove(*output);
  output->end.reason = reason;
  output->end.status = std::move(status);
  ended_.push_back(output);
  if (reason != FinishReason::kError || output->choice != 0) return;
  // Those that still wait for the prompt would fail at it too.
  ActiveRequest& active = output->request;
  for (int choice = 1; choice < active.request.choices; ++choice) {
    if (active.outputs[static_cast<size_t>(choice)] != nullptr) continue;
    end_output(make_output(active, choice), FinishReason::kError, output->end.status);
  }
}

void EngineCore::cancel(RequestId id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  ActiveRequest& active = *found->second;
  for (int choice = 0; choice < active.request.choices; ++choice) {
    std::shared_ptr<Output> output = active.outputs[static_cast<size_t>(choice)];
    if (output == nullptr) output = make_output(active, choice);
    if (output->state != Sequence::State::kEnded) end_output(output, FinishReason::kCancelled);
  }
}

void EngineCore::cancel_all() {
  std::vector<RequestId> ids;
  for (const auto& [id, active] : requests_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  for (const RequestId id : ids) cancel(id);
}

void EngineCore::stop_choice(RequestId id, int choice) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  ActiveRequest& active = *found->second;
  if (choice < 0 || choice >= active.request.choices) return;
  std::shared_ptr<Output> output = active.outputs[static_cast<size_t>(choice)];
  if (output == nullptr) output = make_output(active, choice);
  if (output->state == Sequence::State::kEnded) return;
  end_output(output, FinishReason::kStop);
  if (choice == 0) begin_other_choices(active);  // nobody brings them the prompt any more
}

void EngineCore::deliver() {
  for (Delivery& delivery : std::exchange(deliveries_, {})) {
    Output& output = *delivery.output;
    RequestSink& sink = *output.request.request.sink;
    if (!delivery.prompt.empty()) sink.on_prompt(delivery.prompt_first, delivery.prompt);
    if (!delivery.has_token || sink.on_token(output.choice, delivery.token)) continue;
    if (output.state == Sequence::State::kEnded) {
      output.end.reason = FinishReason::kStop;  // before it had its length
    } else {
      end_output(delivery.output, FinishReason::kStop);
    }
  }
  for (const std::shared_ptr<Output>& output : std::exchange(ended_, {})) {
    ActiveRequest& active = output->request;
    active.cancelled |= output->end.reason == FinishReason::kCancelled;
    active.failed |= output->end.reason == FinishReason::kError;
    active.request.sink->on_choice_end(output->choice, output->end);
    if (--active.open == 0) end_request(active);
  }
}

void EngineCore::end_request(ActiveRequest& active) {
  active.end.finished = EngineClock::now();
  if (!active.started) {
    --waiting_requests_;
    waiting_prompt_tokens_ -= active.end.prompt_tokens;
  }
  if (active.failed) {
    ++stats_.requests_failed;
  } else if (active.cancelled) {
    ++stats_.requests_cancelled;
  } else {
    ++stats_.requests_finished;
    stats_.request_time.add(seconds_between(active.end.arrival, active.end.finished));
  }
  for (const std::shared_ptr<Output>& output : active.outputs) {
    active.end.preemptions += output->residence;
  }
  active.request.sink->on_end(active.end);
  requests_.erase(active.id);
}

EngineStats EngineCore::stats() const {
  const PagePool& pool = scheduler_.pool();
  const auto now = EngineClock::now();
  EngineStats stats = stats_;
  stats.running = scheduler_.running();
  stats.waiting = scheduler_.waiting();
  stats.pages = pool.pages();
  stats.used_pages = pool.used_pages();
  stats.cached_pages = pool.cached_pages();
  stats.free_pages = pool.free_pages();
  stats.evicted_pages = pool.evictions();
  stats.preemptions = scheduler_.preemptions();
  stats.prompt_tokens_per_second = prompt_rate_.per_second(now);
  stats.generated_tokens_per_second = generated_rate_.per_second(now);
  scheduler_.for_each([&](const Sequence& sequence) {
    const auto& output = static_cast<const Output&>(sequence);
    stats.sequences.push_back({.request = output.request.id,
                               .choice = output.choice,
                               .running = output.state == Sequence::State::kRunning,
                               .prompt_tokens = output.prompt_length,
                               .generated_tokens = output.length() - output.prompt_length,
                               .cached_tokens = output.request.end.cached_tokens,
                               .computed_tokens = output.past,
                               .pages = static_cast<int64_t>(output.pages.size())});
    return stats.sequences.size() < EngineStats::kMaxListed;
  });
  return stats;
}

}  // namespace atom
