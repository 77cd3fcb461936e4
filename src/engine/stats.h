// What the engine counts and measures about itself.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace atom {

using EngineClock = std::chrono::steady_clock;

inline double seconds_between(EngineClock::time_point from, EngineClock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// Counts of durations in buckets that double: bucket i holds what is below 2^i * 100 us and in no
// lower bucket, the last one all the rest.
struct DurationHistogram {
  std::array<int64_t, 22> counts = {};
  double sum_seconds = 0;

  static double upper_bound_seconds(size_t bucket);  // infinity for the last
  void add(double seconds);
  int64_t total() const;
};

// Events a second, averaged over the last seconds with weights that fade.
class Rate {
 public:
  void add(double count, EngineClock::time_point now);
  double per_second(EngineClock::time_point now) const;
  // What is left of a rate when nothing came for so long.
  static double fade(double seconds);

 private:
  double faded_ = 0;  // count of events, each weighted by its age at last_
  EngineClock::time_point last_;
};

// One sequence at a moment.
struct SequenceStats {
  uint64_t request = 0;
  int choice = 0;
  bool running = false;  // else it waits
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t cached_tokens = 0;    // of the prompt, found in the prefix cache
  int64_t computed_tokens = 0;  // in its pages, whoever computed them
  int64_t pages = 0;
};

// Gauges are of the moment, the rest counts from the engine's start.
struct EngineStats {
  static constexpr size_t kMaxListed = 256;

  int64_t running = 0;  // sequences
  int64_t waiting = 0;  // sequences that have not started or were preempted, and requests that the
                        // engine's thread has not seen yet
  int64_t waiting_requests = 0;  // of which no output has started: what submit() limits
  int64_t pages = 0;             // of the pool: used + cached + free
  int64_t used_pages = 0;
  int64_t cached_pages = 0;  // used by nobody, kept for what they hold
  int64_t free_pages = 0;
  std::vector<SequenceStats> sequences;  // the first kMaxListed: those running by rank, then those
                                         // waiting, without requests the engine has not seen yet
  double prompt_tokens_per_second = 0;   // that ran or were found in the cache, lately
  double generated_tokens_per_second = 0;  // lately

  int64_t requests_accepted = 0;
  int64_t requests_rejected = 0;
  int64_t requests_finished = 0;  // by stop or length
  int64_t requests_cancelled = 0;
  int64_t requests_failed = 0;
  int64_t prompt_tokens = 0;    // of requests that started
  int64_t cached_tokens = 0;    // of these, found in the prefix cache
  int64_t computed_tokens = 0;  // that ran through the model, in whatever step
  int64_t generated_tokens = 0;
  int64_t preemptions = 0;
  int64_t evicted_pages = 0;  // cached pages that were overwritten
  int64_t steps = 0;
  int64_t failed_steps = 0;
  double busy_seconds = 0;    // in steps
  double runner_seconds = 0;  // of these, in the model's operators (StepOutput::seconds); in the
                              // rest the device had nothing to do
  DurationHistogram step_time;
  DurationHistogram queue_time;           // arrival to start
  DurationHistogram time_to_first_token;  // from arrival
  DurationHistogram time_between_tokens;  // of one output
  DurationHistogram request_time;         // arrival to end, of those finished
};

}  // namespace atom
