// atom bench serve: what the clients of a server see under load.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>

#include "base/file.h"
#include "cli/commands.h"
#include "cli/model_arguments.h"
#include "cli/number_options.h"
#include "cli/output.h"
#include "load/load_generator.h"
#include "load/load_report.h"

namespace atom::cli {
namespace {

constexpr int64_t kDefaultRequests = 100;
constexpr int64_t kMaxStreams = 100000;
constexpr size_t kMaxKeyBytes = 4096;

struct ServeArguments {
  std::string url;
  std::string api = "completions";
  std::string api_key;
  std::string api_key_file;
  std::string extra_body;
  std::string trace;
  std::string text;
  std::string slo;
  std::string report;
  std::string duration;
  std::string timeout = "10m";
  double temperature = 0;
  double tokens_per_word = 0;
  bool respect_eos = false;
  bool json = false;
  LoadOptions load;
};

Result<std::string> read_api_key(const ServeArguments& arguments) {
  std::string key = arguments.api_key;
  if (!arguments.api_key_file.empty()) {
    key = ATOM_TRY(read_text_file(arguments.api_key_file, kMaxKeyBytes));
    while (!key.empty() && (key.back() == '\n' || key.back() == '\r')) key.pop_back();
  }
  const bool printable =
      std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c < '\x7f'; });
  if (!printable) {
    return error(ErrorCode::kInvalidArgument,
                 "the API key has a space or a character outside ASCII in it");
  }
  return key;
}

Result<std::shared_ptr<const Json>> make_extra(const ServeArguments& arguments) {
  Json extra{{"temperature", arguments.temperature}};
  if (!arguments.respect_eos) extra["ignore_eos"] = true;
  if (!arguments.extra_body.empty()) {
    const Json given = ATOM_TRY(parse_json(arguments.extra_body, "--extra-body"));
    if (!given.is_object()) {
      return error(ErrorCode::kInvalidArgument, "--extra-body: not a JSON object");
    }
    extra.update(given);
  }
  return std::shared_ptr<const Json>(std::make_shared<Json>(std::move(extra)));
}

Result<LoadOptions> make_options(const ServeArguments& arguments, const Trace* trace) {
  LoadOptions options = arguments.load;
  options.url = ATOM_TRY(parse_url(arguments.url));
  options.api = arguments.api == "chat" ? Api::kChat : Api::kCompletions;
  options.api_key = ATOM_TRY(read_api_key(arguments));
  options.extra = ATOM_TRY(make_extra(arguments));
  if (!arguments.duration.empty()) options.duration_s = ATOM_TRY(parse_seconds(arguments.duration));
  options.timeout_s = ATOM_TRY(parse_seconds(arguments.timeout));
  if (arguments.tokens_per_word > 0) options.tokens_per_word = arguments.tokens_per_word;
  if (trace != nullptr) {
    options.trace_name = std::filesystem::path(arguments.trace).filename().string();
  }
  const bool open_loop = options.plan.rate > 0 || options.plan.trace_arrivals;
  if (!open_loop && options.concurrency == 0) options.concurrency = 1;
  const bool endless = options.plan.requests == 0 && !options.plan.trace_arrivals;
  if (endless && options.duration_s == 0) options.plan.requests = kDefaultRequests;
  return options;
}

// A report that cannot be written is better known before the measurement than after it.
Status check_report_folder(const std::string& report) {
  if (report.empty()) return {};
  const std::filesystem::path folder = std::filesystem::absolute(report).parent_path();
  std::error_code ignored;
  if (std::filesystem::is_directory(folder, ignored)) return {};
  return error(ErrorCode::kNotFound, "--report '{}': no such folder", report);
}

Status bench_serve(const ServeArguments& arguments) {
  std::optional<Trace> trace;
  if (!arguments.trace.empty()) trace = ATOM_TRY(read_trace(arguments.trace));
  const Trace* trace_used = trace ? &*trace : nullptr;
  const LoadOptions options = ATOM_TRY(make_options(arguments, trace_used));
  const Slo slo = arguments.slo.empty() ? Slo{} : ATOM_TRY(parse_slo(arguments.slo));
  ATOM_TRY(check_report_folder(arguments.report));
  const std::optional<std::filesystem::path> text =
      arguments.text.empty() ? std::nullopt : std::optional<std::filesystem::path>(arguments.text);
  const PromptSource prompts = ATOM_TRY(PromptSource::open(text, options.plan.seed));
  RequestPlan plan = ATOM_TRY(RequestPlan::create(options.plan, trace_used));
  const LoadResult result = ATOM_TRY(run_load(options, prompts, std::move(plan), slo));

  if (arguments.json) {
    print_json(load_report_json(options, result));
  } else {
    fmt::print("{}", load_report_text(options, result));
  }
  if (!arguments.report.empty()) {
    ATOM_TRY(write_file_atomically(arguments.report, load_report_html(options, result)));
  }
  if (result.interrupted) return error(ErrorCode::kCancelled, "interrupted");
  if (result.measurement.succeeded() == 0) {
    return error(ErrorCode::kIo, "no request was answered");
  }
  return {};
}

void add_server_options(CLI::App& command, ServeArguments& arguments) {
  command.add_option("--url", arguments.url, "Where the server listens: http://host:port[/prefix]")
      ->required()
      ->type_name("URL");
  command.add_option("--model", arguments.load.model, "Its name (default: the first listed)")
      ->type_name("NAME");
  command.add_option("--api", arguments.api, "completions or chat")
      ->check(CLI::IsMember({"completions", "chat"}))
      ->type_name("API")
      ->capture_default_str();
  auto* key = command.add_option("--api-key", arguments.api_key, "Sent as a bearer token");
  key->type_name("KEY");
  command.add_option("--api-key-file", arguments.api_key_file, "The same, read from a file")
      ->excludes(key)
      ->type_name("FILE");
  command.add_option("--timeout", arguments.timeout, "For one request, from connecting to its end")
      ->type_name("TIME")
      ->capture_default_str();
  command
      .add_option("--extra-body", arguments.extra_body,
                  "Members for every request, as a JSON object: {\"top_p\": 0.9}")
      ->type_name("JSON");
}

void add_load_options(CLI::App& command, ServeArguments& arguments) {
  LoadOptions& load = arguments.load;
  auto* concurrency =
      command.add_option("--concurrency", load.concurrency,
                         "Closed loop: clients that each wait for an answer before they ask again");
  concurrency->check(CLI::Range(int64_t{1}, kMaxStreams))->type_name("N");
  auto* rate = command.add_option("--rate", load.plan.rate,
                                  "Open loop: requests a second that arrive whatever happens");
  rate->check(CLI::Range(1e-6, 1e6))->type_name("R")->excludes(concurrency);
  auto* trace = command.add_option("--trace", arguments.trace,
                                   "Lengths of prompts and answers from a CSV or JSONL file");
  trace->type_name("FILE");
  auto* arrivals = command.add_flag("--trace-arrivals", load.plan.trace_arrivals,
                                    "Open loop: requests arrive as in the trace");
  arrivals->needs(trace)->excludes(concurrency)->excludes(rate);
  command.add_option("--speed", load.plan.speed, "How much faster than in the trace")
      ->check(CLI::Range(1e-6, 1e6))
      ->needs(arrivals)
      ->type_name("X")
      ->capture_default_str();
  add_count(command, "--max-streams", load.max_streams, 1, kMaxStreams,
            "Open loop: arrivals beyond so many fail");
  command
      .add_option("--requests", load.plan.requests,
                  "How many (default: 100, or the whole trace with its arrivals)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->type_name("N");
  command.add_option("--duration", arguments.duration, "Start no request later than this")
      ->type_name("TIME");
  add_count(command, "--warmup", load.warmup, 0, 1000000, "Requests before the measurement");
}

void add_request_options(CLI::App& command, ServeArguments& arguments) {
  LoadOptions& load = arguments.load;
  const auto count = [&](const char* name, int64_t& value, int64_t least, const char* text) {
    add_count(command, name, value, least, kMaxTokens, text);
  };
  count("--prompt-tokens", load.plan.prompt_tokens, 1, "Tokens of a prompt, about");
  count("--max-tokens", load.plan.max_tokens, 1, "Tokens of an answer");
  count("--shared-prefix", load.shared_prefix_tokens, 0,
        "Tokens at the beginning that all prompts share");
  count("--context", load.plan.context, 0,
        "Leave out requests of the trace with more tokens in all (0: none)");
  command.add_option("--text", arguments.text, "A text whose words make the prompts")
      ->type_name("FILE");
  command
      .add_option("--tokens-per-word", arguments.tokens_per_word,
                  "Of that text (default: asked of the server)")
      ->check(CLI::Range(0.05, 1000.0))
      ->type_name("X");
  command.add_option("--temperature", arguments.temperature, "Of the answers")
      ->check(CLI::Range(0.0, 100.0))
      ->type_name("T")
      ->capture_default_str();
  command.add_flag("--respect-eos", arguments.respect_eos,
                   "Let answers end by themselves (else ignore_eos is sent)");
  command.add_option("--seed", load.plan.seed, "Of prompts, order and arrivals")
      ->type_name("N")
      ->capture_default_str();
}

}  // namespace

void add_bench_serve_command(CLI::App& group, Action& action) {
  CLI::App* command =
      group.add_subcommand("serve", "What the clients of an OpenAI-compatible server see");
  command->footer(
      "Sends streaming requests to any OpenAI-compatible server and reports time to first\n"
      "token, time per output token, inter-token and end-to-end latencies, throughput, and\n"
      "failures by kind. Prompts are random words; the server is asked first how many tokens\n"
      "it makes of them. Ctrl-C reports what was measured so far.\n"
      "\n"
      "Examples:\n"
      "  atom bench serve --url http://localhost:8000 --concurrency 16 --requests 200\n"
      "  atom bench serve --url http://localhost:8000 --rate 4 --duration 60s \\\n"
      "      --trace sharegpt.csv --context 2048 --slo ttft=500ms,tpot=50ms --report out.html\n"
      "  atom bench serve --url http://localhost:8000 --trace azure.csv --trace-arrivals");
  auto arguments = std::make_shared<ServeArguments>();
  add_server_options(*command, *arguments);
  add_load_options(*command, *arguments);
  add_request_options(*command, *arguments);
  command
      ->add_option("--slo", arguments->slo,
                   "Bounds of a good request: ttft=500ms,tpot=50ms,e2e=10s")
      ->type_name("BOUNDS");
  command->add_option("--report", arguments->report, "Write a page with plots")
      ->type_name("FILE.html");
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->callback(
      [arguments, &action] { action = [arguments] { return bench_serve(*arguments); }; });
}

}  // namespace atom::cli
