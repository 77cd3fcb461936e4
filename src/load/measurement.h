// What a load generator saw, gathered while it runs; memory does not grow with the requests.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "load/latency_histogram.h"
#include "load/openai.h"
#include "load/slo.h"
#include "load/timeline.h"

namespace atom {

enum class Outcome : uint8_t {
  kSucceeded,
  kFailed,
  kUnfinished,  // still running when the measurement was cut off
};

// One request. Times are seconds after the start of the measurement; latencies count from `due`,
// the moment at which the schedule wanted the request sent: a client that lags must not flatter
// the server.
struct StreamRecord {
  double due = 0;
  double sent = 0;
  double first_text = 0;  // meaningful if text_events > 0
  double last_text = 0;
  double ended = 0;
  int64_t text_events = 0;
  TokenUsage usage;
  Outcome outcome = Outcome::kFailed;
  std::string failure_kind;     // a few words from a small set: "connect", "http 503", "timeout"
  std::string failure_message;  // what exactly

  // The server's count where it gives one, else the events that carried text.
  int64_t generated_tokens() const { return usage.generated_tokens.value_or(text_events); }
};

struct Failures {
  int64_t count = 0;
  std::string example;
};

class Measurement {
 public:
  explicit Measurement(const Slo& slo) : slo_(slo) {}

  // An event with text arrived; previous: when the one before it in its stream did, negative if
  // there was none.
  void on_text(double now, double previous);
  // A request is over.
  void on_end(const StreamRecord& record);

  // Latencies in seconds. TTFT, TPOT and end-to-end of the requests that succeeded, ITL between
  // the text events of every stream.
  const LatencyHistogram& ttft() const { return ttft_; }
  const LatencyHistogram& tpot() const { return tpot_; }
  const LatencyHistogram& itl() const { return itl_; }
  const LatencyHistogram& e2e() const { return e2e_; }
  // How long after it was due a request was sent.
  const LatencyHistogram& lag() const { return lag_; }

  int64_t succeeded() const { return succeeded_; }
  int64_t failed() const { return failed_; }
  int64_t unfinished() const { return unfinished_; }
  int64_t ended() const { return succeeded_ + failed_ + unfinished_; }
  int64_t good() const { return good_; }  // succeeded within the SLO
  const Slo& slo() const { return slo_; }
  const std::map<std::string, Failures>& failures() const { return failures_; }

  // Tokens of the requests that succeeded or were cut off.
  int64_t generated_tokens() const { return generated_tokens_; }
  int64_t prompt_tokens() const { return prompt_tokens_; }
  // Whose counts those are: requests with usage from the server, and requests without.
  int64_t counted_by_server() const { return counted_by_server_; }
  int64_t counted_by_events() const { return counted_by_events_; }

  const Timeline& text_events() const { return text_events_; }
  const Timeline& open_streams() const { return open_streams_; }
  // From the start to the end of the last request.
  double seconds() const { return seconds_; }

 private:
  Slo slo_;
  LatencyHistogram ttft_, tpot_, itl_, e2e_, lag_;
  int64_t succeeded_ = 0, failed_ = 0, unfinished_ = 0, good_ = 0;
  int64_t generated_tokens_ = 0, prompt_tokens_ = 0;
  int64_t counted_by_server_ = 0, counted_by_events_ = 0;
  std::map<std::string, Failures> failures_;
  Timeline text_events_, open_streams_;
  double seconds_ = 0;
};

}  // namespace atom
