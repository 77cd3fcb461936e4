// Continuous batching: any number of requests share one model, one KV cache and one forward pass a
// step. docs/engine.md is normative.
//
//   any thread   submit, cancel, stop_choice, drain, stats
//        | inbox (mutex)                      ^ RequestSink, snapshot of stats (mutex)
//        v                                    |
//   engine thread   receive -> plan -> wait for the running step -> sample -> start -> deliver
//
// The engine's thread owns all mutable state: sequences, pages, samplers, the runner.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "base/status.h"
#include "engine/request.h"
#include "engine/runner.h"

namespace atom {

class Decoder;

struct EngineOptions {
  int64_t max_sequences = 64;  // that run at once; at most the runner's logit rows
  int64_t max_batch_tokens =
      512;                   // of a step: one for each sequence that generates, the rest for
                             // chunks of prompts; at most the runner's, at least max_sequences
  int64_t context = 0;       // tokens of prompt and output together; 0: all that fits
  bool prefix_cache = true;  // requests share pages with equal beginnings
  int64_t max_waiting_requests = 1024;     // beyond these submit() rejects
  int64_t max_waiting_tokens = 4'000'000;  // of waiting prompts
};

// How submit() answers.
struct Submission {
  enum class Verdict : uint8_t {
    kAccepted,
    kInvalid,    // parameters, or a prompt that can never fit: 400
    kQueueFull,  // 429
    kDraining,   // 503
  };
  Verdict verdict = Verdict::kAccepted;
  RequestId id = 0;
  Status status;                   // what is wrong, in one line
  double retry_after_seconds = 0;  // kQueueFull: when a place should be free, at the recent rate

  bool accepted() const { return verdict == Verdict::kAccepted; }
};

// Counts of durations in buckets that double: bucket i holds what is below 2^i * 100 us and in no
// lower bucket, the last one all the rest.
struct DurationHistogram {
  std::array<int64_t, 20> counts = {};
  double sum_seconds = 0;

  static double upper_bound_seconds(size_t bucket);  // infinity for the last
  void add(double seconds);
  int64_t total() const;
};

// Gauges are of the moment, the rest counts from the engine's start.
struct EngineStats {
  int64_t running = 0;  // sequences
  int64_t waiting = 0;  // requests not started, and sequences that were preempted
  int64_t pages = 0;    // of the pool; used + cached + free
  int64_t used_pages = 0;
  int64_t cached_pages = 0;  // used by nobody, kept for their content
  int64_t free_pages = 0;
  double prompt_tokens_per_second = 0;  // over the last seconds
  double generated_tokens_per_second = 0;

  int64_t requests_accepted = 0;
  int64_t requests_rejected = 0;
  int64_t requests_finished = 0;  // all choices stopped or reached their length
  int64_t requests_cancelled = 0;
  int64_t requests_failed = 0;
  int64_t prompt_tokens = 0;    // of requests that started
  int64_t cached_tokens = 0;    // of them, not computed thanks to the prefix cache
  int64_t computed_tokens = 0;  // that ran through the model, recomputation included
  int64_t generated_tokens = 0;
  int64_t preemptions = 0;
  int64_t evicted_pages = 0;  // cached pages that were overwritten
  int64_t failed_steps = 0;
  int64_t steps = 0;
  double busy_seconds = 0;    // in steps
  double runner_seconds = 0;  // of them, in the runner: the rest is the engine's overhead
  DurationHistogram step_time;
  DurationHistogram queue_time;  // arrival to start
  DurationHistogram time_to_first_token;
  DurationHistogram time_per_token;  // of an output token after its first: its step's share
  DurationHistogram request_time;
};

class Engine {
 public:
  // Takes memory for the KV cache (kv_pages pages of 16 tokens, every layer's K and V; see
  // page_bytes()) and starts the thread. The decoder must outlive the engine and be used by nobody
  // else. Fails on options that do not fit the decoder's limits, naming the option.
  static Result<std::unique_ptr<Engine>> create(Decoder& decoder, int64_t kv_pages,
                                                const EngineOptions& options);
  // The same on any runner.
  static Result<std::unique_ptr<Engine>> create(std::unique_ptr<Runner> runner,
                                                const EngineOptions& options);

  // Cancels what is left.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Checks the request and queues it, or rejects it before any work is done; only an accepted
  // request's sink is ever called.
  Submission submit(Request request);
  // Ends all outputs of a request with kCancelled; no token is delivered after the call that the
  // engine had not begun to deliver. Unknown and finished ids are ignored, as they may be in
  // flight.
  void cancel(RequestId id);
  // Ends one output with kStop.
  void stop_choice(RequestId id, int choice);

  // From here on submit() rejects with kDraining; what was accepted goes on.
  void drain();
  // Waits until no request is left; false if that took longer.
  bool wait_idle(std::chrono::milliseconds longest);

  EngineStats stats() const;
  int64_t context() const;  // tokens that prompt and output may have together
  const EngineOptions& options() const;

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace atom
