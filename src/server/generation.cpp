#include "server/generation.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace atom {
namespace {

// Equal salts give equal numbers (FNV-1a).
uint64_t salt_number(std::string_view salt) {
  if (salt.empty()) return 0;
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : salt) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

ApiError rejection(const Submission& submission) {
  ApiError result = api_error(submission.status);
  switch (submission.verdict) {
    case Submission::Verdict::kAccepted:
    case Submission::Verdict::kInvalid:
      result.status = 400;
      break;
    case Submission::Verdict::kQueueFull:
      result.status = 429;
      result.type = "rate_limit_error";
      result.code = "queue_full";
      result.retry_after_seconds =
          std::max(1, static_cast<int>(std::ceil(submission.retry_after_seconds)));
      break;
    case Submission::Verdict::kDraining:
      result.status = 503;
      result.type = "server_error";
      result.code = "draining";
      result.retry_after_seconds = 5;
      break;
  }
  return result;
}

bool unset(EngineClock::time_point time) { return time == EngineClock::time_point{}; }

// The earlier of two times of which either may not have come.
EngineClock::time_point earlier(EngineClock::time_point a, EngineClock::time_point b) {
  if (unset(a)) return b;
  return unset(b) ? a : std::min(a, b);
}

}  // namespace

// One prompt's events, by the place of its outputs among all.
class Generation::Sink final : public RequestSink {
 public:
  Sink(std::shared_ptr<Generation> owner, size_t prompt)
      : owner_(std::move(owner)),
        prompt_(prompt),
        first_output_(prompt * owner_->outputs_per_prompt()) {}

  void on_prompt(int64_t, std::span<const ScoredToken> tokens) override {
    owner_->on_prompt(prompt_, tokens);
  }
  bool on_token(int choice, const ScoredToken& token) override {
    return owner_->on_token(output(choice), token);
  }
  void on_choice_end(int choice, const ChoiceEnd& end) override {
    owner_->on_choice_end(output(choice), end);
  }
  void on_end(const RequestEnd& end) override { owner_->on_end(end); }

 private:
  size_t output(int choice) const { return first_output_ + static_cast<size_t>(choice); }
  const std::shared_ptr<Generation> owner_;
  const size_t prompt_;
  const size_t first_output_;
};

Generation::Generation(Engine& engine, const Tokenizer& tokenizer, GenerationPlan plan,
                       std::shared_ptr<HttpExchange> exchange, GenerationDone done)
    : engine_(engine),
      tokenizer_(tokenizer),
      plan_(std::move(plan)),
      exchange_(std::move(exchange)),
      done_(std::move(done)) {
  const GenerationFields& fields = plan_.fields;
  for (const PromptInput& prompt : plan_.prompts) {
    prompts_.push_back({.detokenizer = IncrementalDetokenizer(tokenizer_, fields.skip_special)});
    const int64_t offset = plan_.echo ? count_characters(prompt.echo) : 0;
    for (size_t i = 0; i < outputs_per_prompt(); ++i) {
      outputs_.push_back({.text = ChoiceText(tokenizer_, fields.skip_special, fields.stop,
                                             fields.logprobs >= 0, offset)});
      if (!plan_.tool_names.empty()) outputs_.back().tools.emplace(plan_.tool_names);
    }
  }
}

void Generation::start(Engine& engine, const Tokenizer& tokenizer, GenerationPlan plan,
                       std::shared_ptr<HttpExchange> exchange, std::chrono::milliseconds time_limit,
                       GenerationDone done) {
  const std::shared_ptr<Generation> self(
      new Generation(engine, tokenizer, std::move(plan), std::move(exchange), std::move(done)));
  if (!self->submit_all()) return;
  // The exchange keeps the callbacks, and this keeps the exchange.
  const std::weak_ptr<Generation> weak = self;
  self->exchange_->on_disconnect([weak] {
    const auto generation = weak.lock();
    if (!generation) return;
    generation->finished_ = true;
    generation->cancel_all();
  });
  if (time_limit.count() > 0) {
    self->exchange_->on_timeout(time_limit, [weak, time_limit] {
      if (const auto generation = weak.lock()) generation->on_time_limit(time_limit);
    });
  }
  if (self->plan_.fields.stream) {
    HttpResponse head{.headers = self->plan_.headers,
                      .content_type = "text/event-stream; charset=utf-8"};
    head.headers.push_back({"Cache-Control", "no-cache"});
    head.headers.push_back({"X-Accel-Buffering", "no"});  // nginx: pass pieces on at once
    self->exchange_->begin(std::move(head));
  }
}

Request Generation::engine_request(const PromptInput& prompt) const {
  const GenerationFields& fields = plan_.fields;
  const int logprobs = static_cast<int>(fields.logprobs);
  return {.prompt = prompt.ids,
          .sampling = fields.sampling,
          .max_tokens = fields.max_tokens < 0 ? engine_.context() : fields.max_tokens,
          .choices = static_cast<int>(fields.best_of),
          .stop_ids = fields.stop_ids,
          .ignore_eos = fields.ignore_eos,
          .priority = -static_cast<int>(fields.priority),
          .logprobs = logprobs,
          .prompt_logprobs = plan_.echo ? logprobs : kNoLogprobs,
          .score = fields.best_of > fields.n,
          .cache_salt = salt_number(fields.cache_salt),
          .constraint = plan_.constraint,
          .sink = nullptr};
}

// All prompts or none.
bool Generation::submit_all() {
  open_prompts_ = static_cast<int64_t>(plan_.prompts.size());
  for (size_t i = 0; i < plan_.prompts.size(); ++i) {
    Request request = engine_request(plan_.prompts[i]);
    request.sink = std::make_shared<Sink>(shared_from_this(), i);
    const Submission submission = engine_.submit(std::move(request));
    if (submission.accepted()) {
      ids_.push_back(submission.id);
      continue;
    }
    const ApiError problem = rejection(submission);
    HttpResponse response = error_response(problem);
    response.headers.insert(response.headers.end(), plan_.headers.begin(), plan_.headers.end());
    finished_ = true;
    exchange_->respond(std::move(response));
    GenerationReport report;
    GenerationDone done;
    {
      const std::lock_guard lock(mutex_);
      report_.status = problem.status;
      report_.message = problem.message;
      report = report_;
      done = std::exchange(done_, nullptr);
    }
    done(report);
    cancel_all();
    return false;
  }
  return true;
}

void Generation::cancel_all() {
  for (const RequestId id : ids_) engine_.cancel(id);
}

void Generation::on_time_limit(std::chrono::milliseconds limit) {
  {
    const std::lock_guard lock(mutex_);
    stopped_by_ = fmt::format("the request took longer than {} s",
                              std::chrono::duration<double>(limit).count());
  }
  cancel_all();
}

void Generation::on_prompt(size_t prompt, std::span<const ScoredToken> tokens) {
  const std::lock_guard lock(mutex_);
  Prompt& state = prompts_[prompt];
  for (const ScoredToken& token : tokens) {
    state.tokens.push_back({token, state.offset});
    state.offset += count_characters(state.detokenizer.push(token.token));
  }
}

bool Generation::on_token(size_t output, const ScoredToken& token) {
  const std::lock_guard lock(mutex_);
  ChoiceText& text = outputs_[output].text;
  const bool more = text.push(token);
  if (plan_.fields.stream && text.has_news()) schedule(output);
  return more;
}

void Generation::on_choice_end(size_t output, const ChoiceEnd& end) {
  const std::lock_guard lock(mutex_);
  Output& state = outputs_[output];
  state.text.finish(plan_.scores_stop ? end.stop : ScoredToken{});
  state.end = end;
  if (plan_.fields.stream) schedule(output);
}

void Generation::on_end(const RequestEnd& end) {
  GenerationDone done;
  {
    const std::lock_guard lock(mutex_);
    add_to_report(end);
    if (open_prompts_ == 1) {
      conclude_report();
      done = std::exchange(done_, nullptr);
    }
  }
  // Before the answer can end: who has an answer finds it counted and logged.
  if (done) done(report_);
  const std::lock_guard lock(mutex_);
  if (--open_prompts_ == 0) schedule_flush();
}

void Generation::add_to_report(const RequestEnd& end) {
  RequestEnd& sum = report_.end;
  sum.prompt_tokens += end.prompt_tokens;
  sum.cached_tokens += end.cached_tokens;
  sum.generated_tokens += end.generated_tokens;
  sum.preemptions += end.preemptions;
  sum.arrival = earlier(sum.arrival, end.arrival);
  sum.started = earlier(sum.started, end.started);
  sum.first_token = earlier(sum.first_token, end.first_token);
  sum.finished = std::max(sum.finished, end.finished);
}

void Generation::conclude_report() {
  const auto failed = std::find_if(outputs_.begin(), outputs_.end(), [](const Output& output) {
    return output.end && output.end->reason == FinishReason::kError;
  });
  const Output& first = failed == outputs_.end() ? outputs_.front() : *failed;
  if (!first.end) return;
  report_.finish = finish_reason_name(first.end->reason);
  report_.message = first.end->status.message();
  if (first.end->reason == FinishReason::kError && !plan_.fields.stream) report_.status = 500;
  if (first.end->reason == FinishReason::kCancelled) {
    report_.status = stopped_by_.empty() ? 499 : 504;
  }
}

void Generation::schedule(size_t output) {
  if (!outputs_[output].dirty) {
    outputs_[output].dirty = true;
    dirty_.push_back(output);
  }
  schedule_flush();
}

void Generation::schedule_flush() {
  if (std::exchange(flush_scheduled_, true)) return;
  exchange_->post([self = shared_from_this()] { self->flush(); });
}

void Generation::flush() {
  if (plan_.fields.stream) {
    flush_stream();
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    flush_scheduled_ = false;
    if (open_prompts_ > 0) return;
  }
  if (!std::exchange(finished_, true)) answer_whole();
}

// Sends the outputs' news one by one. While a client does not keep up, text gathers and goes out in
// fewer, larger chunks.
void Generation::flush_stream() {
  bool done = false;
  while (!finished_ && !done) {
    if (exchange_->wait_until_sent([self = shared_from_this()] { self->flush(); })) return;
    size_t output = 0;
    {
      const std::lock_guard lock(mutex_);
      if (dirty_.empty()) {
        flush_scheduled_ = false;
        if (open_prompts_ > 0) return;
        done = true;
        break;
      }
      output = dirty_.front();
      dirty_.pop_front();
      outputs_[output].dirty = false;
    }
    send_news(output);
  }
  if (!std::exchange(finished_, true)) end_stream();
}

// What an output has to say since the last time, its prompt first where that is echoed.
AnswerPart Generation::take_part(size_t output) {
  const size_t prompt = output / outputs_per_prompt();
  AnswerPart part{.index = static_cast<int64_t>(prompt * static_cast<size_t>(plan_.fields.n) +
                                                output % outputs_per_prompt())};
  TextPiece piece;
  std::optional<ChoiceEnd> end;
  Output& state = outputs_[output];
  {
    const std::lock_guard lock(mutex_);
    if (plan_.echo && !state.opened) {
      part.text = plan_.prompts[prompt].echo;
      part.logprobs = prompts_[prompt].tokens;
    }
    piece = state.text.take();
    end = state.end;
  }
  state.opened = true;
  std::move(piece.logprobs.begin(), piece.logprobs.end(), std::back_inserter(part.logprobs));
  if (state.tools) {
    ToolOutput found = state.tools->push(piece.text);
    if (end) {
      ToolOutput rest = state.tools->finish();
      found.content += rest.content;
      std::move(rest.calls.begin(), rest.calls.end(), std::back_inserter(found.calls));
    }
    part.text += found.content;
    part.calls = std::move(found.calls);
    part.first_call = state.calls_sent;
    state.calls_sent += static_cast<int64_t>(part.calls.size());
  } else {
    part.text += piece.text;
  }
  if (end) {
    const bool called = state.calls_sent > 0 && end->reason == FinishReason::kStop;
    part.finish_reason = called ? "tool_calls" : finish_reason_name(end->reason);
  }
  return part;
}

void Generation::write_event(std::string_view data) {
  exchange_->write(fmt::format("data: {}\n\n", data));
}

void Generation::send_news(size_t index) {
  Output& output = outputs_[index];
  if (output.closed) return;
  const bool first = !output.opened;
  const AnswerPart part = take_part(index);
  if (first) {
    const std::string opening = plan_.format->opening(part.index);
    if (!opening.empty()) write_event(opening);
  }
  output.closed = !part.finish_reason.empty();
  const bool says_something = !part.text.empty() || !part.calls.empty() || output.closed;
  // An output that failed ends with the stream's error instead.
  const bool failed = part.finish_reason == "error" || part.finish_reason == "cancelled";
  if (says_something && !failed) write_event(plan_.format->chunk(part));
}

void Generation::end_stream() {
  if (const auto problem = failure()) {
    write_event(error_json(*problem));
  } else if (plan_.fields.include_usage) {
    write_event(plan_.format->usage_chunk(usage()));
  }
  write_event("[DONE]");
  exchange_->end();
}

// Why there is no good answer, if so. Called after the last event of the engine.
std::optional<ApiError> Generation::failure() const {
  const std::lock_guard lock(mutex_);
  for (const Output& output : outputs_) {
    if (!output.end) continue;
    if (output.end->reason == FinishReason::kError) {
      ApiError problem = api_error(output.end->status);
      if (problem.status == 400) problem.status = 500;
      problem.type = "server_error";
      return problem;
    }
    if (output.end->reason == FinishReason::kCancelled) {
      if (stopped_by_.empty()) {
        return ApiError{.status = 503,
                        .message = "the server ended the request",
                        .type = "server_error",
                        .code = "cancelled"};
      }
      return ApiError{
          .status = 504, .message = stopped_by_, .type = "server_error", .code = "time_limit"};
    }
  }
  return std::nullopt;
}

Usage Generation::usage() const {
  const std::lock_guard lock(mutex_);
  return {.prompt_tokens = report_.end.prompt_tokens,
          .cached_tokens = report_.end.cached_tokens,
          .completion_tokens = report_.end.generated_tokens};
}

// The n outputs of a prompt to return: by index, or by the mean log-probability of their tokens.
std::vector<size_t> Generation::best_outputs(size_t prompt) const {
  std::vector<size_t> order(outputs_per_prompt());
  for (size_t i = 0; i < order.size(); ++i) order[i] = prompt * outputs_per_prompt() + i;
  if (plan_.fields.best_of > plan_.fields.n) {
    const auto score = [&](size_t output) {
      const ChoiceEnd& end = *outputs_[output].end;
      return end.logprob_sum / static_cast<double>(std::max<int64_t>(end.tokens, 1));
    };
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return score(a) > score(b); });
  }
  order.resize(static_cast<size_t>(plan_.fields.n));
  return order;
}

void Generation::answer_whole() {
  HttpResponse response;
  if (const auto problem = failure()) {
    response = error_response(*problem);
  } else {
    std::vector<AnswerPart> parts;
    for (size_t prompt = 0; prompt < plan_.prompts.size(); ++prompt) {
      for (const size_t output : best_outputs(prompt)) {
        parts.push_back(take_part(output));
        parts.back().index = static_cast<int64_t>(parts.size() - 1);
      }
    }
    response.body = plan_.format->whole(parts, usage());
  }
  response.headers.insert(response.headers.end(), plan_.headers.begin(), plan_.headers.end());
  exchange_->respond(std::move(response));
}

}  // namespace atom
