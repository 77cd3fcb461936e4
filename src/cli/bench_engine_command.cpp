// atom bench engine: many requests at once through the engine, without HTTP: tokens a second, and
// how much of a step is the engine's own.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/interrupt.h"
#include "base/parallel.h"
#include "base/random.h"
#include "cli/commands.h"
#include "cli/model_arguments.h"
#include "cli/number_options.h"
#include "cli/output.h"
#include "engine/engine.h"
#include "model/decoder.h"

namespace atom::cli {
namespace {

struct EngineBenchArguments {
  ModelArguments model;
  int64_t requests = 16;
  int64_t prompt = 128;
  int64_t generate = 64;
  int64_t batch_tokens = 512;
  double temperature = 0;
  int64_t logprobs = kNoLogprobs;
  bool json = false;
};

class CountingSink : public RequestSink {
 public:
  bool on_token(int, const ScoredToken&) override { return true; }
  void on_choice_end(int, const ChoiceEnd& end) override { status = end.status; }
  void on_end(const RequestEnd& end) override { this->end = end; }

  Status status;
  RequestEnd end;
};

Status bench_engine(const EngineBenchArguments& in) {
  const OpenedModel model = ATOM_TRY(open_model(in.model));
  const int64_t context = in.prompt + in.generate;
  const std::unique_ptr<Decoder> decoder =
      ATOM_TRY(Decoder::create(*model.backend, model.weights,
                               {.max_tokens = std::max(in.batch_tokens, in.requests),
                                .max_logit_rows = in.requests,
                                .positions = model.weights->prefix_tokens + context}));
  const int64_t pages = in.requests * ((context + kPageTokens - 1) / kPageTokens);
  const std::unique_ptr<Engine> engine = ATOM_TRY(Engine::create(
      *decoder, pages,
      {.max_sequences = in.requests, .max_batch_tokens = decoder->limits().max_tokens}));
  Random random(1);
  std::vector<std::shared_ptr<CountingSink>> sinks;
  const auto start = EngineClock::now();
  for (int64_t i = 0; i < in.requests; ++i) {
    std::vector<int32_t> prompt(static_cast<size_t>(in.prompt));
    for (int32_t& token : prompt) {
      token = static_cast<int32_t>(random.below(model.weights->config.vocab));
    }
    sinks.push_back(std::make_shared<CountingSink>());
    const Submission submission = engine->submit(
        {.prompt = std::move(prompt),
         .sampling = {.temperature = in.temperature, .seed = static_cast<uint64_t>(i)},
         .max_tokens = in.generate,
         .ignore_eos = true,
         .logprobs = static_cast<int>(in.logprobs),
         .sink = sinks.back()});
    ATOM_TRY(submission.status);
  }
  while (!engine->wait_idle(std::chrono::milliseconds(100))) ATOM_TRY(check_interrupted());
  const double seconds = seconds_between(start, EngineClock::now());
  const EngineStats stats = engine->stats();
  double first = 0, each = 0;  // seconds, means over requests
  for (const auto& sink : sinks) {
    ATOM_TRY(sink->status);
    const auto count = static_cast<double>(in.requests);
    first += seconds_between(sink->end.arrival, sink->end.first_token) / count;
    each += seconds_between(sink->end.first_token, sink->end.finished) / count /
            static_cast<double>(std::max<int64_t>(1, in.generate - 1));
  }
  const double rate = static_cast<double>(stats.generated_tokens) / seconds;
  const double overhead = 1 - stats.runner_seconds / stats.busy_seconds;
  if (in.json) {
    print_json({{"model", in.model.path},
                {"device", model.backend->detail()},
                {"threads", thread_count()},
                {"requests", in.requests},
                {"prompt", in.prompt},
                {"generate", in.generate},
                {"temperature", in.temperature},
                {"generated_tokens_per_s", rate},
                {"time_to_first_token_s", first},
                {"time_per_token_s", each},
                {"steps", stats.steps},
                {"step_seconds", stats.busy_seconds / static_cast<double>(stats.steps)},
                {"overhead", overhead}});
    return {};
  }
  fmt::print("{} on {}\n", in.model.path, model.backend->detail());
  fmt::print("generated    {:10.1f} tokens/s   ({} requests of {} + {} tokens)\n", rate,
             in.requests, in.prompt, in.generate);
  fmt::print("first token  {:10.1f} ms, mean\n", first * 1e3);
  fmt::print("each token   {:10.1f} ms, mean\n", each * 1e3);
  fmt::print("step         {:10.2f} ms, of which {:.1f}% the engine's own\n",
             stats.busy_seconds / static_cast<double>(stats.steps) * 1e3, overhead * 100);
  return {};
}

}  // namespace

void add_bench_engine_command(CLI::App& group, Action& action) {
  CLI::App* command = group.add_subcommand("engine", "Many requests at once, without a server");
  command->footer(
      "All requests arrive at once; their prompts are random tokens. The engine's own part of a\n"
      "step is all that the model does not do: scheduling, sampling, delivering.\n"
      "\n"
      "Example:\n"
      "  atom bench engine model-w4a8 --requests 16 --prompt 128 --generate 64 --json");
  auto arguments = std::make_shared<EngineBenchArguments>();
  add_model_arguments(*command, arguments->model);
  const auto count = [&](const char* name, int64_t& value, int64_t most, const char* text) {
    add_count(*command, name, value, 1, most, text);
  };
  count("--requests", arguments->requests, 4096, "Requests, all of which run at once");
  count("--prompt", arguments->prompt, 1 << 20, "Tokens of each prompt");
  count("--generate", arguments->generate, 1 << 20, "Tokens to generate for each");
  count("--batch-tokens", arguments->batch_tokens, 1 << 16, "Tokens of a step at most");
  command->add_option("--temperature", arguments->temperature, "0: greedy")
      ->check(CLI::Range(0.0, 100.0))
      ->type_name("X")
      ->capture_default_str();
  command->add_option("--logprobs", arguments->logprobs, "Report logprobs and so many alternatives")
      ->check(CLI::Range(0, kMaxLogprobs))
      ->type_name("N");
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->callback(
      [arguments, &action] { action = [arguments] { return bench_engine(*arguments); }; });
}

}  // namespace atom::cli
