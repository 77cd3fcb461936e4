// The engine without its thread: requests in, steps, events out. One thread uses it at a time;
// Engine gives it one of its own, Generator the caller's.
#pragma once

#include <cstdint>
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
  // overlaps, it plans while the step of the last turn runs, and starts after having finished that.
  // False when no request is left.
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

  // A step: launch() forms a batch of the slices and starts it, collect() waits for it, samples and
  // commits. After an error the slices are still in running_slices_, for run_one_by_one().
  Status launch(std::vector<StepSlice> slices);
  Status collect();
  void run_one_by_one(const Status& why);
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
  std::vector<StepSlice> running_slices_;
  std::vector<SamplingScratch> scratch_;
  std::vector<Delivery> deliveries_;
  std::vector<std::shared_ptr<Output>> ended_;  // whose sinks do not know yet

  EngineStats stats_;
  Rate prompt_rate_, generated_rate_;
};

}  // namespace atom
