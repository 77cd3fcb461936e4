#include "engine/engine_core.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/parallel.h"
#include "engine/logprobs.h"
#include "model/batching.h"

namespace atom {
namespace {

// Earlier requests that one level of priority goes before.
constexpr int64_t kOvertakenPerLevel = 32;

uint64_t seed_of_choice(uint64_t seed, int choice) {
  return choice == 0 ? seed : Random(seed + static_cast<uint64_t>(choice)).next();
}

bool contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

Status check_range(const char* name, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return {};
  return error(ErrorCode::kInvalidArgument, "{} = {}: must be within {}..{}", name, value, least,
               most);
}

}  // namespace

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
  // Whether tokens are chosen by the largest logit, and logits are of no other use.
  bool takes_best() const {
    return atom::takes_best(request.sampling) && request.constraint == nullptr &&
           !scores_output() && request.prompt_logprobs < 0;
  }
};

struct EngineCore::Delivery {
  std::shared_ptr<Output> output;
  std::vector<ScoredToken> prompt = {};  // scores of its tokens from prompt_first on, or empty
  int64_t prompt_first = 0;
  bool has_token = false;
  ScoredToken token = {};
};

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
                  .max_logit_rows = runner_->limits().max_logit_rows},
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

bool EngineCore::step() {
  // What passes between two turns counts as well while a step runs.
  const auto start = running_.empty() ? EngineClock::now() : turn_end_;
  const int64_t steps = stats_.steps;
  std::vector<StepSlice> planned = scheduler_.plan();
  const auto finish = [&] {
    if (running_.empty()) return;
    if (const Status status = collect(); !status.ok()) run_one_by_one(status);
  };
  // Without logits to wait for, the next step takes its tokens from where the running one leaves
  // them.
  const bool overlaps = runner_->limits().overlaps;
  const bool ahead = overlaps && !running_.empty() && running_.front().whole_rows == 0;
  if (!ahead) finish();
  if (const Status status = launch(std::move(planned)); !status.ok()) {
    if (ahead) {
      retract_failed();  // the next turn tries again, with nothing before it
    } else {
      run_one_by_one(status);
    }
  }
  if (ahead || !overlaps) finish();
  deliver();
  turn_end_ = EngineClock::now();
  if (stats_.steps > steps) {
    const double seconds = seconds_between(start, turn_end_);
    stats_.busy_seconds += seconds;
    stats_.step_time.add(seconds);
  }
  return !requests_.empty() || !running_.empty();
}

bool EngineCore::takes_best(const StepSlice& slice) {
  return slice.samples && static_cast<const Output&>(*slice.sequence).request.takes_best();
}

void EngineCore::add_to_batch(const StepSlice& slice) {
  auto& output = static_cast<Output&>(*slice.sequence);
  const int32_t unknown = static_cast<int32_t>(-1 - output.last_row);
  std::span<const int32_t> tokens(&unknown, 1);
  if (slice.end() <= output.length()) {
    tokens = std::span(output.tokens)
                 .subspan(static_cast<size_t>(slice.first), static_cast<size_t>(slice.count));
  }
  ATOM_CHECK(static_cast<int64_t>(tokens.size()) == slice.count, "more than a token not known yet");
  for (int64_t t = slice.rows_from; t < slice.end(); ++t) {
    batch_.logit_rows.push_back(static_cast<int32_t>(batch_.size() + t - slice.first));
  }
  output.last_row = static_cast<int64_t>(batch_.logit_rows.size()) - 1;
  add_sequence(batch_, tokens, slice.first, output.pages, runner_->limits().prefix_tokens);
}

Status EngineCore::launch(std::vector<StepSlice> slices) {
  std::erase_if(slices, [&](const StepSlice& slice) { return !scheduler_.launch(slice); });
  if (slices.empty()) return {};
  const auto wants_logits = [](const StepSlice& s) { return s.rows() > 0 && !takes_best(s); };
  std::stable_partition(slices.begin(), slices.end(), wants_logits);
  batch_.clear();
  RunningStep step;
  for (const StepSlice& slice : slices) {
    add_to_batch(slice);
    if (wants_logits(slice)) step.whole_rows += slice.rows();
    ActiveRequest& active = static_cast<Output&>(*slice.sequence).request;
    if (!active.started) note_start(active, slice.first);
  }
  if (Status status = runner_->start(batch_, step.whole_rows); !status.ok()) {
    failed_ = std::move(slices);
    return status;
  }
  step.slices = std::move(slices);
  running_.push_back(std::move(step));
  return {};
}

Status EngineCore::collect() {
  RunningStep step = std::move(running_.front());
  running_.pop_front();
  const Result<StepOutput> output = runner_->wait();
  if (!output.ok()) {
    discard_running();
    failed_ = std::move(step.slices);
    return output.status();
  }
  ++stats_.steps;
  stats_.runner_seconds += output->seconds;
  choose_tokens(step, *output);
  for (const StepSlice& slice : step.slices) commit(slice);
  return {};
}

// What was started behind a step that failed had nothing to build on.
void EngineCore::discard_running() {
  if (running_.empty()) return;
  static_cast<void>(runner_->wait());
  failed_ = std::move(running_.front().slices);
  running_.pop_front();
  retract_failed();
}

void EngineCore::retract_failed() {
  for (const StepSlice& slice : std::exchange(failed_, {})) scheduler_.retract(slice);
}

void EngineCore::choose_tokens(const RunningStep& step, const StepOutput& output) {
  const int64_t vocab = runner_->limits().vocab;
  ATOM_CHECK(static_cast<int64_t>(output.logits.size()) == step.whole_rows * vocab,
             "a row of logits each");
  struct Choice {
    const StepSlice* slice;
    int64_t first_row;
  };
  std::vector<Choice> choices;
  int64_t row = 0;
  for (const StepSlice& slice : step.slices) {
    auto& own = static_cast<Output&>(*slice.sequence);
    if (own.state != Sequence::State::kEnded) {
      if (takes_best(slice)) {
        own.chosen = {.token = output.best[static_cast<size_t>(row)]};
      } else {
        choices.push_back({&slice, row});
      }
    }
    row += slice.rows();
  }
  const auto count = static_cast<int64_t>(choices.size());
  const int64_t tasks = std::min<int64_t>(count, 4 * thread_count());
  if (static_cast<int64_t>(scratch_.size()) < tasks) scratch_.resize(static_cast<size_t>(tasks));
  parallel_for(tasks, [&](int64_t task) {
    for (int64_t i = task; i < count; i += tasks) {
      const auto [slice, first_row] = choices[static_cast<size_t>(i)];
      const std::span<float> rows =
          slice->rows() == 0 ? std::span<float>()
                             : output.logits.subspan(static_cast<size_t>(first_row * vocab),
                                                     static_cast<size_t>(slice->rows() * vocab));
      choose(*slice, rows, scratch_[static_cast<size_t>(task)]);
    }
  });
}

// A step failed: what it held runs again sequence by sequence, and only what fails alone ends.
void EngineCore::run_one_by_one(const Status& why) {
  ++stats_.failed_steps;
  deliver();  // an output may want no more after its last token
  const std::vector<StepSlice> slices = std::exchange(failed_, {});
  for (const StepSlice& slice : slices) {
    // What was preempted meanwhile runs again in any case.
    if (!scheduler_.retract(slice) || slice.residence != slice.sequence->residence) continue;
    Status status = why;
    if (slices.size() > 1) {
      status = launch({slice});
      if (status.ok()) status = collect();
    }
    if (status.ok()) continue;
    failed_.clear();
    if (slices.size() > 1) scheduler_.retract(slice);
    end_output(std::static_pointer_cast<Output>(slice.sequence), FinishReason::kError, status);
  }
}

// Reads the logits of one slice. Runs beside others of its kind: touches only the slice's output.
void EngineCore::choose(const StepSlice& slice, std::span<float> rows,
                        SamplingScratch& scratch) const {
  Output& output = static_cast<Output&>(*slice.sequence);
  const ActiveRequest& active = output.request;
  const auto vocab = static_cast<size_t>(runner_->limits().vocab);
  const auto row_of = [&](int64_t token) {
    return rows.subspan(static_cast<size_t>(token - slice.rows_from) * vocab, vocab);
  };
  output.failure = {};
  output.prompt_scores.clear();
  if (active.request.prompt_logprobs >= 0 && output.choice == 0 &&
      output.scored < output.prompt_length) {
    if (output.scored == 0) {
      output.prompt_scores.push_back(
          {.token = output.tokens[0], .logprob = std::numeric_limits<float>::quiet_NaN()});
    }
    for (int64_t t = slice.rows_from; t < std::min(slice.end(), output.prompt_length - 1); ++t) {
      const Distribution distribution(row_of(t), active.request.prompt_logprobs, scratch.ranking);
      const int32_t token = output.tokens[static_cast<size_t>(t + 1)];
      output.prompt_scores.push_back(
          distribution.score(token, row_of(t)[static_cast<size_t>(token)]));
    }
  }
  if (!slice.samples) return;
  const std::span<float> logits = row_of(slice.end() - 1);
  std::span<uint64_t> allowed;
  if (output.constraint != nullptr) {
    scratch.allowed.resize((vocab + 63) / 64);
    allowed = scratch.allowed;
    output.constraint->allowed(allowed);
  }
  if (active.scores_output()) {
    const Distribution distribution(logits, std::max(0, active.request.logprobs), scratch.ranking);
    const int32_t token = output.sampler.sample(logits, scratch, allowed);
    output.chosen = distribution.score(token, output.sampler.chosen_logit());
  } else {
    output.chosen = {.token = output.sampler.sample(logits, scratch, allowed)};
  }
  if (output.chosen.token < 0) {
    output.failure = error(ErrorCode::kInvalidArgument, "no token satisfies the constraint");
  }
}

void EngineCore::commit(const StepSlice& slice) {
  stats_.computed_tokens += slice.count;
  if (!scheduler_.complete(slice)) return;
  const auto output = std::static_pointer_cast<Output>(slice.sequence);
  ActiveRequest& active = output->request;
  const int64_t of_prompt = std::min(slice.end(), output->prompt_length) - slice.first;
  if (of_prompt > 0) prompt_rate_.add(static_cast<double>(of_prompt), EngineClock::now());
  if (!output->prompt_scores.empty()) {
    const int64_t first = output->scored;
    output->scored += static_cast<int64_t>(output->prompt_scores.size());
    deliveries_.push_back(
        {.output = output, .prompt = std::move(output->prompt_scores), .prompt_first = first});
  }
  if (output->choice == 0 && slice.end() >= output->prompt_length) begin_other_choices(active);
  if (slice.samples) {
    commit_token(output);
  } else if (!output->generates() && slice.end() == output->length()) {
    end_output(output, FinishReason::kLength);
  }
}

void EngineCore::commit_token(const std::shared_ptr<Output>& output) {
  ActiveRequest& active = output->request;
  const Request& request = active.request;
  if (!output->failure.ok()) return end_output(output, FinishReason::kError, output->failure);
  const int32_t token = output->chosen.token;
  if (contains(request.stop_ids, token) ||
      (!request.ignore_eos && contains(runner_->limits().eos_ids, token))) {
    output->end.stop = std::move(output->chosen);
    return end_output(output, FinishReason::kStop);
  }
  if (output->constraint != nullptr) {
    const Status status = output->constraint->accept(token);
    if (!status.ok()) return end_output(output, FinishReason::kError, status);
  }
  const auto now = EngineClock::now();
  if (active.end.generated_tokens++ == 0) {
    active.end.first_token = now;
    stats_.time_to_first_token.add(seconds_between(active.end.arrival, now));
  }
  if (output->end.tokens++ > 0) {
    stats_.time_between_tokens.add(seconds_between(output->last_token, now));
  }
  output->last_token = now;
  if (active.scores_output()) {
    output->end.logprob_sum += static_cast<double>(output->chosen.logprob);
  }
  ++stats_.generated_tokens;
  generated_rate_.add(1, now);
  output->tokens.push_back(token);
  deliveries_.push_back({.output = output, .has_token = true, .token = std::move(output->chosen)});
  if (output->length() >= output->limit) end_output(output, FinishReason::kLength);
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
