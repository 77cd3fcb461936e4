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

#include <chrono>
#include <cstdint>
#include <memory>

#include "base/status.h"
#include "engine/engine_options.h"
#include "engine/request.h"
#include "engine/runner.h"
#include "engine/stats.h"

namespace atom {

class Decoder;

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
  Status status = {};              // what is wrong, in one line
  double retry_after_seconds = 0;  // kQueueFull: when a place should be free, at the recent rate

  bool accepted() const { return verdict == Verdict::kAccepted; }
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

  // Cancels what is left: every sink has had its on_end when this returns.
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
