#include "load/load_report.h"
#include "load/plot.h"

namespace atom {
namespace {

constexpr int64_t kCurvePoints = 300;
// A distribution that spans more than this factor is shown on a logarithmic axis.
constexpr double kLogSpan = 20;

constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --ink: #1d1f23; --soft: #6b7078; --rule: #e3e5e8; --page: #fbfbfa;
  --accent: #2f6fb3; --bound: #b3541e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e8ea; --soft: #969ba3; --rule: #2b2e33;
  --page: #141517; --accent: #7db3ee; --bound: #eba06f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 Inter, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 48px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; font-weight: 650; letter-spacing: -.015em;
  overflow-wrap: anywhere; }
h2 { font-size: 15px; margin: 0 0 8px; font-weight: 600; }
p { margin: 0; color: var(--soft); overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 24px;
  margin: 36px 0 44px; }
.figures b { display: block; font-size: 30px; font-weight: 600; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr));
  gap: 36px 40px; }
.plot { width: 100%; height: auto; display: block; font-size: 12px; }
.plot text { fill: var(--soft); font-variant-numeric: tabular-nums; }
.plot .grid { stroke: var(--rule); fill: none; }
.plot .line { stroke: var(--accent); stroke-width: 2; fill: none; stroke-linejoin: round; }
.plot .area { fill: var(--accent); opacity: .14; }
.plot circle.mark { fill: var(--accent); }
.plot text.mark { fill: var(--ink); }
.plot path.bound { stroke: var(--bound); stroke-dasharray: 4 3; fill: none; }
.plot text.bound { fill: var(--bound); }
.plot text.mark, .plot text.bound { paint-order: stroke; stroke: var(--page); stroke-width: 4px;
  stroke-linejoin: round; }
.wide { overflow-x: auto; margin-top: 44px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 8px 12px; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child, td.text { text-align: left; padding-left: 0; }
td.text { white-space: normal; overflow-wrap: anywhere; padding-left: 12px; }
footer { margin-top: 44px; }
)css";

std::string figure(const std::string& value, std::string_view name) {
  return fmt::format("<div><b>{}</b><span>{}</span></div>\n", value, name);
}

Plot distribution(const char* title, const LatencyHistogram& latency,
                  const std::optional<double>& bound) {
  Plot plot;
  plot.title = title;
  plot.percent_y = true;
  const double scale = latency.percentile(0.9) >= 2 ? 1 : 1e3;
  plot.x_unit = scale == 1 ? "s" : "ms";
  for (const auto& point : latency.cumulative(kCurvePoints)) {
    plot.line.push_back({point.seconds * scale, point.share});
  }
  if (plot.line.empty()) return plot;
  // Events that arrive together are no time apart; a logarithm needs some.
  constexpr double kSmallest = 1e-6;
  plot.log_x = latency.max() > kLogSpan * std::max(latency.percentile(0.05), kSmallest);
  if (plot.log_x) {
    const double low = std::max(latency.percentile(0.01), kSmallest) * scale;
    for (PlotPoint& point : plot.line) point.x = std::max(point.x, low);
  }
  for (const auto& [share, name] : {std::pair{0.5, "p50"}, {0.9, "p90"}, {0.99, "p99"}}) {
    const double seconds = latency.percentile(share);
    plot.marks.push_back(
        {{seconds * scale, share}, fmt::format("{} {}", name, format_latency(seconds))});
  }
  if (bound)
    plot.bounds.push_back(
        {{*bound * scale, 0}, fmt::format("SLO {:g} {}", *bound * scale, plot.x_unit)});
  return plot;
}

Plot over_time(const char* title, const Timeline& timeline, double seconds) {
  Plot plot;
  plot.title = title;
  plot.x_unit = "s";
  plot.filled = true;
  const std::vector<double> rates = timeline.rates(seconds);
  for (size_t i = 0; i < rates.size(); ++i) {
    const double middle = (static_cast<double>(i) + 0.5) * timeline.bin_seconds();
    plot.line.push_back({middle, rates[i]});
  }
  return plot;
}

std::string section(const Plot& plot) {
  return fmt::format("<section><h2>{}</h2>\n{}</section>\n", escape_html(plot.title),
                     plot_svg(plot));
}

std::string html_latency_row(const char* name, const LatencyHistogram& latency) {
  if (latency.count() == 0) return {};
  return fmt::format(
      "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
      name, latency.count(), format_latency(latency.mean()),
      format_latency(latency.percentile(0.5)), format_latency(latency.percentile(0.9)),
      format_latency(latency.percentile(0.99)), format_latency(latency.max()));
}

std::string tables(const LoadOptions& options, const Measurement& m) {
  std::string html =
      "<div class=\"wide\"><table><tr><th>Latency</th><th>count</th><th>mean</th><th>p50</th>"
      "<th>p90</th><th>p99</th><th>max</th></tr>\n";
  html += html_latency_row("Time to first token", m.ttft());
  html += html_latency_row("Time per output token", m.tpot());
  html += html_latency_row("Inter-token latency", m.itl());
  html += html_latency_row("End to end", m.e2e());
  if (options.concurrency == 0) html += html_latency_row("Sent late by", m.lag());
  html += "</table></div>\n";
  if (m.failures().empty()) return html;
  html += "<div class=\"wide\"><table><tr><th>Failures</th><th>count</th><th></th></tr>\n";
  for (const auto& [kind, failures] : m.failures()) {
    html += fmt::format("<tr><td>{}</td><td>{}</td><td class=\"text\">{}</td></tr>\n",
                        escape_html(kind), failures.count, escape_html(failures.example));
  }
  return html + "</table></div>\n";
}

}  // namespace

std::string load_report_html(const LoadOptions& options, const LoadResult& result) {
  const Measurement& m = result.measurement;
  std::string html = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{0}</title>\n<style>{1}</style>\n</head>\n<body>\n<main>\n<h1>{0}</h1>\n"
      "<p>http://{2}{3}{4}</p>\n<p>{5}</p>\n",
      escape_html(result.model), kStyle, escape_html(options.url.authority()),
      escape_html(options.url.prefix), api_path(options.api), escape_html(describe_load(options)));
  if (result.interrupted) html += "<p>Interrupted: these are the requests so far.</p>\n";

  html += "<div class=\"figures\">\n";
  html += figure(fmt::format("{:.1f}", per_second(m.generated_tokens(), m)), "generated tokens/s");
  html += figure(fmt::format("{:.2f}", per_second(m.succeeded(), m)), "requests/s");
  html += figure(format_latency(m.ttft().percentile(0.5)), "time to first token, p50");
  html += figure(format_latency(m.itl().percentile(0.5)), "inter-token latency, p50");
  if (!m.slo().empty()) {
    html += figure(fmt::format("{:.2f}", per_second(m.good(), m)), "requests/s within the SLO");
  }
  html += figure(fmt::format("{} / {}", m.failed(), m.ended()), "requests failed");
  html += "</div>\n<div class=\"plots\">\n";
  html += section(distribution("Time to first token", m.ttft(), m.slo().ttft));
  html += section(distribution("Time per output token", m.tpot(), m.slo().tpot));
  html += section(distribution("Inter-token latency", m.itl(), std::nullopt));
  html += section(distribution("End to end", m.e2e(), m.slo().e2e));
  html += section(over_time("Events with text per second", m.text_events(), m.seconds()));
  html += section(over_time("Streams open", m.open_streams(), m.seconds()));
  html += "</div>\n" + tables(options, m);
  html += fmt::format(
      "<footer><p>{} of {} requests answered in {:.2f} s; {} tokens generated, counted by {}; seed "
      "{}. Curves show the share of samples at or below a latency.</p></footer>\n</main>\n</body>\n"
      "</html>\n",
      m.succeeded(), m.ended(), m.seconds(), m.generated_tokens(), token_source(m),
      options.plan.seed);
  return html;
}

}  // namespace atom
