#include "load/measurement.h"

#include <algorithm>

namespace atom {

void Measurement::on_text(double now, double previous) {
  text_events_.add(now, 1);
  if (previous >= 0) itl_.record(now - previous);
}

void Measurement::on_end(const StreamRecord& record) {
  seconds_ = std::max(seconds_, record.ended);
  open_streams_.add_span(record.sent, record.ended);
  if (record.outcome == Outcome::kFailed) {
    ++failed_;
    Failures& failures = failures_[record.failure_kind];
    if (failures.count++ == 0) failures.example = record.failure_message;
    return;
  }
  lag_.record(record.sent - record.due);
  const int64_t tokens = record.generated_tokens();
  generated_tokens_ += tokens;
  prompt_tokens_ += record.usage.prompt_tokens.value_or(0);
  if (record.outcome == Outcome::kUnfinished) {
    ++unfinished_;
    return;
  }
  ++succeeded_;
  ++(record.usage.generated_tokens ? counted_by_server_ : counted_by_events_);
  const double ttft = record.first_text - record.due;
  const double e2e = record.ended - record.due;
  ttft_.record(ttft);
  e2e_.record(e2e);
  double tpot = 0;  // of an answer of one token there is none, and it keeps any bound
  if (tokens > 1) {
    tpot = (record.last_text - record.first_text) / static_cast<double>(tokens - 1);
    tpot_.record(tpot);
  }
  const auto within = [](double seconds, const std::optional<double>& bound) {
    return !bound || seconds <= *bound;
  };
  good_ += within(ttft, slo_.ttft) && within(tpot, slo_.tpot) && within(e2e, slo_.e2e);
}

}  // namespace atom
