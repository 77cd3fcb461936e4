// A step of the engine, from its plan to its tokens.
#include <algorithm>
#include <limits>
#include <utility>

#include "base/parallel.h"
#include "engine/active_request.h"
#include "engine/engine_core.h"
#include "engine/logprobs.h"
#include "model/batching.h"

namespace atom {
namespace {

bool contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

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
  const double seconds = seconds_between(start, turn_end_);
  if (stats_.steps > steps || !running_.empty()) stats_.busy_seconds += seconds;
  if (stats_.steps > steps) stats_.step_time.add(seconds);
  return !requests_.empty() || !running_.empty();
}

bool EngineCore::runner_chooses(const StepSlice& slice) {
  return slice.samples && static_cast<const Output&>(*slice.sequence).request.runner_chooses();
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
    batch_.draws.emplace_back();
  }
  if (runner_chooses(slice)) {
    batch_.draws.back() = output.sampler.draw_at(slice.end() - output.prompt_length);
  }
  output.last_row = static_cast<int64_t>(batch_.logit_rows.size()) - 1;
  add_sequence(batch_, tokens, slice.first, output.pages, runner_->limits().prefix_tokens);
}

Status EngineCore::launch(std::vector<StepSlice> slices) {
  std::erase_if(slices, [&](const StepSlice& slice) { return !scheduler_.launch(slice); });
  if (slices.empty()) return {};
  const auto wants_logits = [](const StepSlice& s) { return s.rows() > 0 && !runner_chooses(s); };
  std::stable_partition(slices.begin(), slices.end(), wants_logits);
  batch_.clear();
  RunningStep step;
  for (const StepSlice& slice : slices) {
    add_to_batch(slice);
    if (wants_logits(slice)) step.whole_rows += slice.rows();
    ActiveRequest& active = static_cast<Output&>(*slice.sequence).request;
    if (!active.started) note_start(active, slice.first);
  }
  const auto is_argmax = [](const TokenDraw& draw) { return draw.scale == 0; };
  if (std::ranges::all_of(batch_.draws, is_argmax)) batch_.draws.clear();
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
      if (runner_chooses(slice)) {
        own.chosen = {.token = output.chosen[static_cast<size_t>(row)]};
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

}  // namespace atom
