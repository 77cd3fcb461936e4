// atom serve: the OpenAI-compatible server.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/model_arguments.h"
#include "cli/number_options.h"
#include "engine/engine.h"
#include "engine/kv_budget.h"
#include "model/decoder.h"
#include "server/server.h"

namespace atom::cli {
namespace {

constexpr size_t kMaxKeyFileBytes = 1 << 20;

struct ServeArguments {
  ModelArguments model;
  ServerOptions server;
  EngineOptions engine;
  uint16_t port = 8000;
  int64_t max_logit_rows = 0;
  std::string kv_memory;
  std::string api_key_file;
  double request_timeout = 0;  // seconds
  double header_timeout = 10;
  double body_timeout = 30;
  double idle_timeout = 60;
  double write_timeout = 30;
  int64_t max_body_mib = 8;
  bool no_prefix_cache = false;
};

// One key a line; blank lines and those that begin with # are skipped.
Status add_keys(const std::string& path, std::vector<std::string>& keys) {
  const std::string text = ATOM_TRY(read_text_file(path, kMaxKeyFileBytes));
  size_t begin = 0;
  const size_t before = keys.size();
  while (begin < text.size()) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty() && line.front() != '#') keys.push_back(line);
    begin = end + 1;
  }
  if (keys.size() > before) return {};
  return error(ErrorCode::kInvalidArgument, "{}: holds no key", path);
}

Result<KvPages> choose_kv_pages(const ServeArguments& arguments, const Backend& backend,
                                const Decoder& decoder, int64_t context) {
  const int64_t a_page = page_bytes(ATOM_TRY(decoder.make_cache(1))->shape());
  if (arguments.kv_memory.empty()) {
    return default_kv_pages({.page_bytes = a_page,
                             .context = context,
                             .max_sequences = arguments.engine.max_sequences,
                             .memory = backend.memory()});
  }
  const int64_t bytes = ATOM_TRY(parse_bytes("--kv-memory", arguments.kv_memory));
  if (const int64_t pages = bytes / a_page; pages >= 1) {
    return KvPages{.pages = pages, .cache_pages = pages};
  }
  return error(ErrorCode::kInvalidArgument, "--kv-memory: {} bytes, less than a page of {}", bytes,
               a_page);
}

std::string default_name(const std::string& path) {
  std::filesystem::path name = std::filesystem::path(path).lexically_normal();
  if (!name.has_filename()) name = name.parent_path();
  if (name.extension() == ".gguf") name = name.stem();
  return name.filename().string();
}

Status serve(ServeArguments& arguments) {
  std::signal(SIGPIPE, SIG_IGN);  // a log or a terminal that goes away is an error, not the end
  if (!arguments.api_key_file.empty()) {
    ATOM_TRY(add_keys(arguments.api_key_file, arguments.server.api_keys));
  }
  const OpenedModel model = ATOM_TRY(open_model(arguments.model));
  return_free_memory();  // loading took some
  EngineOptions& engine_options = arguments.engine;
  engine_options.prefix_cache = !arguments.no_prefix_cache;
  engine_options.max_batch_tokens =
      std::max(engine_options.max_batch_tokens, engine_options.max_sequences);
  const int64_t most = model.weights->config.context - model.weights->prefix_tokens;
  const int64_t context =
      engine_options.context == 0 ? most : std::min(engine_options.context, most);
  const std::unique_ptr<Decoder> decoder =
      ATOM_TRY(Decoder::create(*model.backend, model.weights,
                               {.max_tokens = engine_options.max_batch_tokens,
                                .max_logit_rows = engine_options.max_sequences,
                                .positions = model.weights->prefix_tokens + context}));
  const auto [pages, cache_pages] =
      ATOM_TRY(choose_kv_pages(arguments, *model.backend, *decoder, context));
  engine_options.cache_pages = cache_pages;
  engine_options.context = std::min(context, pages * kPageTokens);
  const std::unique_ptr<Engine> engine = ATOM_TRY(Engine::create(*decoder, pages, engine_options));

  ServerOptions& options = arguments.server;
  if (options.model_name.empty()) options.model_name = default_name(arguments.model.path);
  const auto seconds = [](double value) {
    return std::chrono::milliseconds(static_cast<int64_t>(value * 1000));
  };
  options.http.port = arguments.port;
  options.http.max_body_bytes = arguments.max_body_mib << 20;
  options.http.header_timeout = seconds(arguments.header_timeout);
  options.http.body_timeout = seconds(arguments.body_timeout);
  options.http.idle_timeout = seconds(arguments.idle_timeout);
  options.http.write_timeout = seconds(arguments.write_timeout);
  options.request_timeout = seconds(arguments.request_timeout);
  const std::unique_ptr<Server> server = ATOM_TRY(Server::start(model, *engine, options));

  const bool ipv6 = options.http.host.find(':') != std::string::npos;
  fmt::print("ready: http://{}{}{}:{} serves {} ({}, context {}, {} KV pages)\n", ipv6 ? "[" : "",
             options.http.host, ipv6 ? "]" : "", server->port(), options.model_name,
             model.backend->detail(), engine->context(), pages);
  std::fflush(stdout);
  while (!interrupted()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  fmt::print(stderr, "finishing what runs; again Ctrl-C ends at once\n");
  server->drain();
  return {};
}

void add_limits(CLI::App& command, ServeArguments& arguments) {
  EngineOptions& engine = arguments.engine;
  const auto count = [&](const char* name, int64_t& value, int64_t least, int64_t most,
                         const char* text) {
    add_count(command, name, value, least, most, text)->group("Limits");
  };
  const auto seconds = [&](const char* name, double& value, double least, const char* text) {
    add_seconds(command, name, value, least, text)->group("Limits");
  };
  count("--context", engine.context, 0, 1 << 24,
        "Tokens of a prompt and its output together; 0: what the model can");
  count("--max-sequences", engine.max_sequences, 1, 1 << 14, "Outputs generated at once");
  count("--max-batch-tokens", engine.max_batch_tokens, 1, 1 << 20,
        "Tokens of a step: more favours long prompts, fewer a steady stream");
  command
      .add_option(
          "--kv-memory", arguments.kv_memory,
          "Memory of the KV cache, like 512M or 4G (default: 8 full contexts, at most a\n"
          "quarter of the free memory, and 2 for what the prefix cache keeps; with --device\n"
          "cuda --max-sequences full contexts, at most nine tenths of what the model leaves\n"
          "of the GPU's)")
      ->type_name("SIZE")
      ->group("Limits");
  count("--max-waiting", engine.max_waiting_requests, 0, 1 << 24,
        "Requests that may wait; further ones get 429");
  count("--max-connections", arguments.server.http.max_connections, 1, 1 << 20, "Open connections");
  count("--max-body", arguments.max_body_mib, 1, 1 << 10, "MiB of a request's body");
  seconds("--request-timeout", arguments.request_timeout, 0,
          "Seconds that a generation may take, its wait included; 0: any time");
  seconds("--header-timeout", arguments.header_timeout, 0.1,
          "Seconds from a request's first byte to the last of its headers");
  seconds("--body-timeout", arguments.body_timeout, 0.1,
          "Seconds from there to the end of its body");
  seconds("--idle-timeout", arguments.idle_timeout, 0.1, "Seconds between a connection's requests");
  seconds("--write-timeout", arguments.write_timeout, 0.1,
          "Seconds after which a client that reads nothing is dropped");
}

}  // namespace

void add_serve_command(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("serve", "Answer over HTTP, as OpenAI's API does, with a web page at /");
  command->footer(
      "Any number of clients share one model: their requests run together, token by token.\n"
      "The page at / is for people, /metrics for Prometheus, /health for load balancers;\n"
      "docs/http_api.md describes them all. Ctrl-C or SIGTERM finishes what runs.\n"
      "\n"
      "Examples:\n"
      "  atom serve model-w4a8\n"
      "  atom serve model-w4a8 --host 0.0.0.0 --port 80 --api-key-file keys --log requests.jsonl\n"
      "\n"
      "  curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\\n"
      "    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], \"stream\": true}'\n"
      "\n"
      "  from openai import OpenAI\n"
      "  client = OpenAI(base_url=\"http://localhost:8000/v1\", api_key=\"-\")");
  auto arguments = std::make_shared<ServeArguments>();
  add_model_arguments(*command, arguments->model);
  ServerOptions& server = arguments->server;
  command->add_option("--host", server.http.host, "Address to listen on; 0.0.0.0 is all of them")
      ->type_name("ADDRESS")
      ->capture_default_str();
  command->add_option("--port", arguments->port, "0 takes a free one; the ready line names it")
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--name", server.model_name,
                   "The model's name for clients (default: the file's)")
      ->type_name("NAME");
  command->add_option("--api-key", server.api_keys, "A key that clients must show; repeatable")
      ->type_name("KEY");
  command->add_option("--api-key-file", arguments->api_key_file, "The same, one key a line")
      ->type_name("FILE");
  command
      ->add_option("--cors-origin", server.cors_origins,
                   "An origin whose pages may call the API, or *; repeatable")
      ->type_name("ORIGIN");
  command->add_option("--log", server.log_path, "A JSON line a request, appended; - is stderr")
      ->type_name("FILE");
  command->add_flag("--no-prefix-cache", arguments->no_prefix_cache,
                    "Compute every prompt anew, also where an earlier one began alike");
  command->add_option("--io-threads", server.http.threads, "Threads for HTTP and text")
      ->check(CLI::Range(1, 64))
      ->type_name("N")
      ->capture_default_str();
  add_limits(*command, *arguments);
  command->callback([arguments, &action] { action = [arguments] { return serve(*arguments); }; });
}

}  // namespace atom::cli
