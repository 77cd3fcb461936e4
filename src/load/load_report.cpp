#include "load/load_report.h"

#include <array>
#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/printable.h"

namespace atom {
namespace {

using OrderedJson = nlohmann::ordered_json;

std::string date_now() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

OrderedJson latency_json(const LatencyHistogram& latency) {
  if (latency.count() == 0) return nullptr;
  return {{"count", latency.count()},
          {"mean", latency.mean() * 1e3},
          {"min", latency.min() * 1e3},
          {"p50", latency.percentile(0.5) * 1e3},
          {"p90", latency.percentile(0.9) * 1e3},
          {"p99", latency.percentile(0.99) * 1e3},
          {"max", latency.max() * 1e3}};
}

OrderedJson load_json(const LoadOptions& options) {
  OrderedJson load;
  if (options.concurrency > 0) {
    load = {{"kind", "closed"}, {"concurrency", options.concurrency}};
  } else if (options.plan.trace_arrivals) {
    load = {{"kind", "trace"}, {"speed", options.plan.speed}};
  } else {
    load = {{"kind", "poisson"}, {"rate", options.plan.rate}};
  }
  load["seed"] = options.plan.seed;
  load["warmup"] = options.warmup;
  load["shared_prefix_tokens"] = options.shared_prefix_tokens;
  if (!options.trace_name.empty()) {
    load["trace"] = options.trace_name;
  } else {
    load["prompt_tokens"] = options.plan.prompt_tokens;
    load["max_tokens"] = options.plan.max_tokens;
  }
  return load;
}

OrderedJson bound_json(const std::optional<double>& bound) {
  return bound ? OrderedJson(*bound * 1e3) : OrderedJson(nullptr);
}

std::string latency_row(const char* name, const LatencyHistogram& latency) {
  if (latency.count() == 0) return {};
  return fmt::format("{:<22}{:>11}{:>11}{:>11}{:>11}{:>11}\n", name, format_latency(latency.mean()),
                     format_latency(latency.percentile(0.5)),
                     format_latency(latency.percentile(0.9)),
                     format_latency(latency.percentile(0.99)), format_latency(latency.max()));
}

}  // namespace

double per_second(int64_t count, const Measurement& measurement) {
  return measurement.seconds() > 0 ? static_cast<double>(count) / measurement.seconds() : 0;
}

std::string format_latency(double seconds) {
  if (seconds < 0.9995e-3) return fmt::format("{:.0f} us", seconds * 1e6);
  if (seconds < 0.9995) return fmt::format("{:.1f} ms", seconds * 1e3);
  return fmt::format("{:.2f} s", seconds);
}

const char* token_source(const Measurement& measurement) {
  if (measurement.counted_by_events() == 0) return "server";
  return measurement.counted_by_server() == 0 ? "events" : "both";
}

std::string describe_load(const LoadOptions& options) {
  std::string text;
  if (options.concurrency > 0) {
    text = fmt::format("{} client{} at once", options.concurrency,
                       options.concurrency == 1 ? "" : "s");
  } else if (options.plan.trace_arrivals) {
    text = fmt::format("arrivals of the trace at {:g} times its speed", options.plan.speed);
  } else {
    text = fmt::format("{:g} requests/s, Poisson", options.plan.rate);
  }
  if (!options.trace_name.empty()) return text + ", lengths of " + options.trace_name;
  return text + fmt::format(", prompts of about {} tokens, answers of at most {}",
                            options.plan.prompt_tokens, options.plan.max_tokens);
}

std::string load_report_text(const LoadOptions& options, const LoadResult& result) {
  const Measurement& m = result.measurement;
  std::string text =
      fmt::format("{} at http://{}{}{}\n{}\n\n", printable(result.model), options.url.authority(),
                  options.url.prefix, api_path(options.api), describe_load(options));
  if (result.interrupted) text += "interrupted: these are the requests so far\n\n";
  text += fmt::format("{:<22}{:>11}   {} failed, {} unfinished, in {:.2f} s\n", "requests answered",
                      m.succeeded(), m.failed(), m.unfinished(), m.seconds());
  text += fmt::format("{:<22}{:>11.2f}   per s, at most {} at once\n", "request throughput",
                      per_second(m.succeeded(), m), result.peak_streams);
  text += fmt::format("{:<22}{:>11.1f}   per s, {} in all, counted by {}\n", "generated tokens",
                      per_second(m.generated_tokens(), m), m.generated_tokens(),
                      std::string_view(token_source(m)) == "server"   ? "the server"
                      : std::string_view(token_source(m)) == "events" ? "events with text"
                                                                      : "the server or events");
  if (m.prompt_tokens() > 0) {
    text += fmt::format("{:<22}{:>11.1f}   per s, {} in all\n", "prompt tokens",
                        per_second(m.prompt_tokens(), m), m.prompt_tokens());
  }
  if (!m.slo().empty()) {
    text += fmt::format(
        "{:<22}{:>11.2f}   requests per s within the SLO, {:.1f}% of all ended\n", "goodput",
        per_second(m.good(), m),
        m.ended() == 0 ? 0.0
                       : 100.0 * static_cast<double>(m.good()) / static_cast<double>(m.ended()));
  }
  text += fmt::format("\n{:<22}{:>11}{:>11}{:>11}{:>11}{:>11}\n", "", "mean", "p50", "p90", "p99",
                      "max");
  text += latency_row("time to first token", m.ttft());
  text += latency_row("time per output token", m.tpot());
  text += latency_row("inter-token latency", m.itl());
  text += latency_row("end to end", m.e2e());
  if (options.concurrency == 0) text += latency_row("sent late by", m.lag());
  if (!m.failures().empty()) text += "\nfailures\n";
  for (const auto& [kind, failures] : m.failures()) {
    text += fmt::format("{:<22}{:>11}   {}\n", kind, failures.count, failures.example);
  }
  if (!result.fit_measured && !options.tokens_per_word) {
    text += fmt::format(
        "\nThe server counts no prompt tokens: prompts were made with {:.1f} tokens a word.\n",
        result.fit.tokens_per_word);
  }
  return text;
}

OrderedJson load_report_json(const LoadOptions& options, const LoadResult& result) {
  const Measurement& m = result.measurement;
  OrderedJson failures = OrderedJson::object();
  for (const auto& [kind, group] : m.failures()) {
    failures[kind] = {{"count", group.count}, {"example", group.example}};
  }
  OrderedJson report{
      {"url", fmt::format("http://{}{}", options.url.authority(), options.url.prefix)},
      {"model", result.model},
      {"endpoint", api_path(options.api)},
      {"date", date_now()},
      {"load", load_json(options)},
      {"tokens_per_word", result.fit.tokens_per_word},
      {"interrupted", result.interrupted},
      {"seconds", m.seconds()},
      {"requests",
       {{"succeeded", m.succeeded()}, {"failed", m.failed()}, {"unfinished", m.unfinished()}}},
      {"failures", std::move(failures)},
      {"peak_streams", result.peak_streams},
      {"requests_per_s", per_second(m.succeeded(), m)},
      {"generate_tokens_per_s", per_second(m.generated_tokens(), m)},
      {"prompt_tokens_per_s", per_second(m.prompt_tokens(), m)},
      {"generated_tokens", m.generated_tokens()},
      {"prompt_tokens", m.prompt_tokens()},
      {"token_source", token_source(m)},
      {"ttft_ms", latency_json(m.ttft())},
      {"tpot_ms", latency_json(m.tpot())},
      {"itl_ms", latency_json(m.itl())},
      {"e2e_ms", latency_json(m.e2e())},
      {"lag_ms", latency_json(m.lag())}};
  if (!m.slo().empty()) {
    report["goodput"] = {{"slo_ms",
                          {{"ttft", bound_json(m.slo().ttft)},
                           {"tpot", bound_json(m.slo().tpot)},
                           {"e2e", bound_json(m.slo().e2e)}}},
                         {"requests", m.good()},
                         {"requests_per_s", per_second(m.good(), m)}};
  }
  report["timeline"] = {{"bin_seconds", m.text_events().bin_seconds()},
                        {"text_events_per_s", m.text_events().rates(m.seconds())},
                        {"open_streams_bin_seconds", m.open_streams().bin_seconds()},
                        {"open_streams", m.open_streams().rates(m.seconds())}};
  return report;
}

}  // namespace atom
