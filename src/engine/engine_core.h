// The engine without its thread: requests in, steps, events out. One thread uses it at a time;
// Engine gives it one of its own, Generator the caller's.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/engine_options.h"
#include "engine/request.h"
#include "engine/runner.h"
#include "engine/scheduler.h"
#include "engine/stats.h"

namespace atom {

class EngineCore {
 public:
  // Fails on options that do not fit the runner's limits, naming the option.
  static Result<std::unique_ptr<EngineCore>> create(std::unique_ptr<Runner> runner,
                                                    const EngineOptions& options);
  ~EngineCore();  // calls no sinks

  // Whether the request can run at all; any thread may ask.
  Status validate(const Request& request) const;

  // Queues a valid request under an id of its own.
  void add(RequestId id, Request request, EngineClock::time_point arrival);
  void cancel(RequestId id);
  void stop_choice(RequestId id, int choice);
  void cancel_all();

  // One turn: plans a step, starts it and finishes it, then calls the sinks. Where the runner
  // overlaps, the step of the last turn runs meanwhile and is finished instead: after the new one
  // was started if no logits of it are wanted, else before. False when no request is left.
  bool step();

  const EngineOptions& options() const { return options_; }       // context filled in
  int64_t waiting_requests() const { return waiting_requests_; }  // nothing of which ran
  int64_t waiting_prompt_tokens() const { return waiting_prompt_tokens_; }
  EngineStats stats() const;  // without what requests had before add()

 private:
  struct ActiveRequest;
  struct Output;
  struct Delivery;

  EngineCore(std::unique_ptr<Runner> runner, const EngineOptions& options);

  std::shared_ptr<Output> make_output(ActiveRequest& request, int choice);
  void begin_other_choices(ActiveRequest& request);
  void note_start(ActiveRequest& request, int64_t cached_tokens);

  // A step on its way through the runner.
  struct RunningStep {
    std::vector<StepSlice> slices;  // those first whose logits come whole
    int64_t whole_rows = 0;
  };
  // launch() forms a batch of the slices and starts it, collect() waits for the first step that
  // runs, samples and commits. After an error the slices are in failed_, for run_one_by_one().
  Status launch(std::vector<StepSlice> slices);
  Status collect();
  void run_one_by_one(const Status& why);
  static bool runner_chooses(const StepSlice& slice);
  void add_to_batch(const StepSlice& slice);
  void discard_running();
  void retract_failed();
  void choose_tokens(const RunningStep& step, const StepOutput& output);
  void choose(const StepSlice& slice, std::span<float> rows, SamplingScratch& scratch) const;
  void commit(const StepSlice& slice);
  void commit_token(const std::shared_ptr<Output>& output);

  void end_output(const std::shared_ptr<Output>& output, FinishReason reason, Status status = {});
  void deliver();
  void end_request(ActiveRequest& request);

  std::unique_ptr<Runner> runner_;
  EngineOptions options_;
  Scheduler scheduler_;
  std::unordered_map<RequestId, std::unique_ptr<ActiveRequest>> requests_;
  int64_t arrivals_ = 0;
  int64_t waiting_requests_ = 0;
  int64_t waiting_prompt_tokens_ = 0;

  Batch batch_;
  std::deque<RunningStep> running_;  // two at most, the second started ahead
  std::vector<StepSlice> failed_;
  std::vector<SamplingScratch> scratch_;
  std::vector<Delivery> deliveries_;
  std::vector<std::shared_ptr<Output>> ended_;  // whose sinks do not know yet

  EngineStats stats_;
  EngineClock::time_point turn_end_ = {};  // of the last turn
  Rate prompt_rate_, generated_rate_;
};

}  // namespace atom
