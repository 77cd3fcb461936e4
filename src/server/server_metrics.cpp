#include "server/server_metrics.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "server/prometheus_text.h"

namespace atom {
namespace {

using OrderedJson = nlohmann::ordered_json;
constexpr size_t kMaxSamples = 8192;
constexpr std::chrono::seconds kWindow{60};

double seconds(EngineClock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

// {"p50", "p90", "p99"}, null where there are no values.
OrderedJson percentiles(std::vector<double> values) {
  OrderedJson result = OrderedJson::object();
  std::sort(values.begin(), values.end());
  for (const auto& [name, share] : {std::pair{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}}) {
    result[name] = nullptr;
    if (values.empty()) continue;
    const double place = share * static_cast<double>(values.size() - 1);
    result[name] = values[static_cast<size_t>(place + 0.5)];
  }
  return result;
}

}  // namespace

void ServerMetrics::count_request(const std::string& path, int status) {
  const std::lock_guard lock(mutex_);
  ++requests_[{path, status}];
}

void ServerMetrics::add_finished(const RequestEnd& end) {
  if (end.first_token == EngineClock::time_point{}) return;
  Sample sample{.finished = end.finished,
                .queue = seconds(end.started - end.arrival),
                .first_token = seconds(end.first_token - end.arrival),
                .per_token = -1,
                .request = seconds(end.finished - end.arrival)};
  if (end.generated_tokens > 1) {
    sample.per_token =
        seconds(end.finished - end.first_token) / static_cast<double>(end.generated_tokens - 1);
  }
  const std::lock_guard lock(mutex_);
  if (samples_.size() < kMaxSamples) {
    samples_.push_back(sample);
  } else {
    samples_[next_sample_] = sample;
  }
  next_sample_ = (next_sample_ + 1) % kMaxSamples;
}

std::vector<ServerMetrics::Sample> ServerMetrics::recent_samples() const {
  const EngineClock::time_point oldest = EngineClock::now() - kWindow;
  std::vector<Sample> recent;
  const std::lock_guard lock(mutex_);
  std::copy_if(samples_.begin(), samples_.end(), std::back_inserter(recent),
               [&](const Sample& sample) { return sample.finished >= oldest; });
  return recent;
}

std::string ServerMetrics::prometheus(const EngineStats& engine, const HttpGauges& http,
                                      const std::string& model) const {
  const auto value = [](int64_t count) { return static_cast<double>(count); };
  PrometheusText out;
  out.metric("atom_info", "gauge", "The model that is served.");
  out.sample(1, {{"model", model}});
  out.gauge("atom_uptime_seconds", "Since the server started.",
            seconds(EngineClock::now() - started_));
  out.gauge("atom_draining", "1 while the server finishes what it has and refuses the rest.",
            http.draining ? 1 : 0);

  out.metric("atom_http_requests_total", "counter", "Answers by path and status.");
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, count] : requests_) {
      out.sample(value(count), {{"path", key.first}, {"status", std::to_string(key.second)}});
    }
  }
  out.gauge("atom_http_connections", "Open connections.", value(http.connections));
  out.counter("atom_http_dropped_clients_total", "Clients dropped because they were too slow.",
              value(http.dropped_clients));
  out.counter("atom_log_lines_lost_total", "Lines that the request log could not write.",
              value(http.lost_log_lines));

  out.gauge("atom_running_sequences", "Outputs being generated.", value(engine.running));
  out.gauge("atom_waiting_requests", "Requests not started, and preempted outputs.",
            value(engine.waiting));
  out.metric("atom_kv_pages", "gauge", "Pages of the KV cache by state.");
  out.sample(value(engine.used_pages), {{"state", "used"}});
  out.sample(value(engine.cached_pages), {{"state", "cached"}});
  out.sample(value(engine.free_pages), {{"state", "free"}});
  out.metric("atom_requests_total", "counter", "Requests of the engine by outcome.");
  out.sample(value(engine.requests_finished), {{"outcome", "finished"}});
  out.sample(value(engine.requests_cancelled), {{"outcome", "cancelled"}});
  out.sample(value(engine.requests_failed), {{"outcome", "failed"}});
  out.sample(value(engine.requests_rejected), {{"outcome", "rejected"}});
  out.counter("atom_prompt_tokens_total", "Tokens of prompts that started.",
              value(engine.prompt_tokens));
  out.counter("atom_cached_tokens_total", "Of them, found in the KV cache.",
              value(engine.cached_tokens));
  out.counter("atom_computed_tokens_total", "Tokens that ran through the model.",
              value(engine.computed_tokens));
  out.counter("atom_generated_tokens_total", "Tokens of outputs.", value(engine.generated_tokens));
  out.counter("atom_preemptions_total", "Outputs that gave their pages back for a while.",
              value(engine.preemptions));
  out.counter("atom_evicted_pages_total", "Cached pages that were overwritten.",
              value(engine.evicted_pages));
  out.counter("atom_steps_total", "Forward passes.", value(engine.steps));
  out.counter("atom_failed_steps_total", "Forward passes that failed.", value(engine.failed_steps));
  out.counter("atom_busy_seconds_total", "Time in steps.", engine.busy_seconds);
  out.counter("atom_runner_seconds_total", "Of it, in the model's operators.",
              engine.runner_seconds);
  out.histogram("atom_step_seconds", "Time of a step.", engine.step_time);
  out.histogram("atom_queue_seconds", "From a request's arrival to its start.", engine.queue_time);
  out.histogram("atom_time_to_first_token_seconds", "From a request's arrival to its first token.",
                engine.time_to_first_token);
  out.histogram("atom_time_between_tokens_seconds", "Of an output, after its first.",
                engine.time_between_tokens);
  out.histogram("atom_request_seconds", "From a request's arrival to its end.",
                engine.request_time);
  return out.text();
}

namespace {

OrderedJson sequences_json(const std::vector<SequenceStats>& sequences) {
  OrderedJson list = OrderedJson::array();
  for (const SequenceStats& sequence : sequences) {
    list.push_back({{"request", sequence.request},
                    {"choice", sequence.choice},
                    {"running", sequence.running},
                    {"prompt_tokens", sequence.prompt_tokens},
                    {"generated_tokens", sequence.generated_tokens},
                    {"cached_tokens", sequence.cached_tokens},
                    {"computed_tokens", sequence.computed_tokens},
                    {"pages", sequence.pages}});
  }
  return list;
}

}  // namespace

OrderedJson ServerMetrics::stats(const EngineStats& engine, const HttpGauges& http,
                                 const std::string& model, int64_t context) const {
  const std::vector<Sample> recent = recent_samples();
  const auto of = [&](double Sample::*member) {
    std::vector<double> values;
    for (const Sample& sample : recent) {
      if (sample.*member >= 0) values.push_back(sample.*member);
    }
    return percentiles(std::move(values));
  };
  return {{"model", model},
          {"context", context},
          {"uptime_seconds", seconds(EngineClock::now() - started_)},
          {"draining", http.draining},
          {"connections", http.connections},
          {"running", engine.running},
          {"waiting", engine.waiting},
          {"kv_pages",
           {{"total", engine.pages},
            {"used", engine.used_pages},
            {"cached", engine.cached_pages},
            {"free", engine.free_pages}}},
          {"tokens_per_second",
           {{"prompt", engine.prompt_tokens_per_second},
            {"generated", engine.generated_tokens_per_second}}},
          {"totals",
           {{"accepted", engine.requests_accepted},
            {"finished", engine.requests_finished},
            {"cancelled", engine.requests_cancelled},
            {"failed", engine.requests_failed},
            {"rejected", engine.requests_rejected},
            {"prompt_tokens", engine.prompt_tokens},
            {"cached_tokens", engine.cached_tokens},
            {"computed_tokens", engine.computed_tokens},
            {"generated_tokens", engine.generated_tokens},
            {"preemptions", engine.preemptions},
            {"steps", engine.steps}}},
          {"sequences", sequences_json(engine.sequences)},
          {"latency_seconds",
           {{"window", kWindow.count()},
            {"requests", recent.size()},
            {"queue", of(&Sample::queue)},
            {"time_to_first_token", of(&Sample::first_token)},
            {"time_per_output_token", of(&Sample::per_token)},
            {"request", of(&Sample::request)}}}};
}

}  // namespace atom
