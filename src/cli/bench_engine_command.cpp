// atom bench engine: many requests at once through the engine, without HTTP: tokens a second, and
// how much of a step is the engine's own.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/interrupt.h"
#include "base/parallel.h"
#include "base/random.h"
#include "cli/bench_model.h"
#include "cli/commands.h"
#include "cli/number_options.h"
#include "cli/output.h"
#include "engine/engine.h"
#include "load/request_plan.h"
#include "model/decoder.h"

namespace atom::cli {
namespace {

constexpr int64_t kMostSequences = 4096;
constexpr int64_t kDefaultContext = 2048;            // of a trace
constexpr int64_t kDefaultSequences = 256;           // under a memory cap
constexpr std::chrono::milliseconds kLookAround{2};  // between two looks at what was answered

struct EngineBenchArguments {
  BenchModelArguments model;
  int64_t requests = 16;
  int64_t prompt = 128;
  int64_t generate = 64;
  std::string trace;    // lengths in place of these two
  int64_t context = 0;  // 0: of a trace kDefaultContext, else prompt and generate
  uint64_t seed = 1;
  double seconds = 0;  // of a measurement under steady load; 0: `requests` at once
  double warmup = 0;
  int64_t sequences = 0;  // 0: as many as requests, or as fit
  int64_t reserve = 0;
  std::string memory_cap;
  int64_t batch_tokens = 512;
  SamplingParams sampling;
  int64_t logprobs = kNoLogprobs;
  bool json = false;
};

// What is run: how many sequences at once, in how much cache.
struct Capacity {
  int64_t longest = 0;    // tokens of a request
  int64_t sequences = 0;  // at once
  int64_t pages = 0;
  int64_t page_bytes = 0;
};

int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

Result<Capacity> find_capacity(const EngineBenchArguments& in, const DecoderWeights& weights) {
  Capacity found;
  const ModelConfig& c = weights.config;
  found.page_bytes = page_bytes({.layers = c.layers,
                                 .kv_heads = c.kv_heads,
                                 .head_dim = c.head_dim,
                                 .pages = 1,
                                 .format = weights.kv});
  found.longest = in.context > 0     ? in.context
                  : in.trace.empty() ? in.prompt + in.generate
                                     : kDefaultContext;
  if (in.reserve > 0 && in.reserve < found.longest) {
    return error(ErrorCode::kInvalidArgument,
                 "--reserve {}: requests may have {} tokens (see --context)", in.reserve,
                 found.longest);
  }
  const int64_t each = pages_for(in.reserve > 0 ? in.reserve : found.longest);
  found.sequences = in.sequences > 0        ? in.sequences
                    : in.memory_cap.empty() ? std::min(in.requests, kMostSequences)
                                            : kDefaultSequences;
  found.pages = found.sequences * each;
  if (in.memory_cap.empty()) return found;
  const int64_t cap = ATOM_TRY(parse_bytes("--memory-cap", in.memory_cap));
  const int64_t fit = (cap - weights.bytes()) / found.page_bytes;
  if (fit < each) {
    return error(ErrorCode::kInvalidArgument,
                 "--memory-cap {}: weights of {:.2f} GB leave no room for a sequence",
                 in.memory_cap, static_cast<double>(weights.bytes()) * 1e-9);
  }
  if (in.reserve > 0) found.sequences = std::min(found.sequences, fit / each);
  found.pages = std::min(found.pages, in.reserve > 0 ? found.sequences * each : fit);
  return found;
}

// What became of the requests; written by the engine's thread.
class Outcome {
 public:
  void add(const RequestEnd& end, const Status& status) {
    const std::lock_guard lock(mutex_);
    ++ended_;
    if (!status.ok()) failure_ = status;
    ends_.push_back(end);
  }
  int64_t ended() const {
    const std::lock_guard lock(mutex_);
    return ended_;
  }
  // Requests that ended since the last call, or what one of them failed with.
  Result<std::vector<RequestEnd>> take() {
    const std::lock_guard lock(mutex_);
    ATOM_TRY(failure_);
    return std::exchange(ends_, {});
  }

 private:
  mutable std::mutex mutex_;
  int64_t ended_ = 0;
  std::vector<RequestEnd> ends_;
  Status failure_;
};

class OutcomeSink : public RequestSink {
 public:
  explicit OutcomeSink(Outcome& outcome) : outcome_(outcome) {}
  bool on_token(int, const ScoredToken&) override { return true; }
  void on_choice_end(int, const ChoiceEnd& end) override { status_ = end.status; }
  void on_end(const RequestEnd& end) override { outcome_.add(end, status_); }

 private:
  Outcome& outcome_;
  Status status_;
};

// Sends the plan's requests, with random tokens for prompts.
class Sender {
 public:
  Sender(const EngineBenchArguments& in, RequestPlan plan, int64_t vocab, Engine& engine,
         Outcome& outcome)
      : in_(in), plan_(std::move(plan)), vocab_(vocab), engine_(engine), outcome_(outcome) {}
  Status send() {
    const PlannedRequest request = *plan_.next();  // there is no end of them
    std::vector<int32_t> prompt(static_cast<size_t>(request.prompt_tokens));
    for (int32_t& token : prompt) token = static_cast<int32_t>(random_.below(vocab_));
    SamplingParams sampling = in_.sampling;
    sampling.seed = static_cast<uint64_t>(sent_);
    const Submission submission = engine_.submit({.prompt = std::move(prompt),
                                                  .sampling = sampling,
                                                  .max_tokens = request.max_tokens,
                                                  .ignore_eos = true,
                                                  .logprobs = static_cast<int>(in_.logprobs),
                                                  .sink = std::make_shared<OutcomeSink>(outcome_)});
    ++sent_;
    return submission.status;
  }
  // Sends as many as it takes to have so many on their way, for so long.
  Status keep(int64_t outstanding, double seconds) {
    const auto start = EngineClock::now();
    while (seconds_between(start, EngineClock::now()) < seconds) {
      ATOM_TRY(check_interrupted());
      while (sent_ - outcome_.ended() < outstanding) ATOM_TRY(send());
      std::this_thread::sleep_for(kLookAround);
    }
    return {};
  }

 private:
  const EngineBenchArguments& in_;
  RequestPlan plan_;
  int64_t vocab_;
  Engine& engine_;
  Outcome& outcome_;
  Random random_{1};
  int64_t sent_ = 0;
};

// The engine's counts over the measured time.
struct Measured {
  double seconds = 0;
  EngineStats before, after;
  std::vector<RequestEnd> ends;

  double share(int64_t EngineStats::*count) const {
    return static_cast<double>(after.*count - before.*count);
  }
  double time(double EngineStats::*sum) const { return after.*sum - before.*sum; }
};

Result<Measured> measure_engine(const EngineBenchArguments& in, const Capacity& capacity,
                                Engine& engine, Sender& sender, Outcome& outcome) {
  Measured measured;
  const auto start_at = [&] {
    measured.before = engine.stats();
    return EngineClock::now();
  };
  EngineClock::time_point start;
  if (in.seconds > 0) {
    // More than run at once, so that nobody waits for a request to come.
    const int64_t outstanding = 2 * capacity.sequences + 8;
    ATOM_TRY(sender.keep(outstanding, in.warmup));
    ATOM_TRY(outcome.take());
    start = start_at();
    ATOM_TRY(sender.keep(outstanding, in.seconds));
  } else {
    start = start_at();
    for (int64_t i = 0; i < in.requests; ++i) ATOM_TRY(sender.send());
    while (!engine.wait_idle(std::chrono::milliseconds(100))) ATOM_TRY(check_interrupted());
  }
  measured.seconds = seconds_between(start, EngineClock::now());
  measured.after = engine.stats();
  measured.ends = ATOM_TRY(outcome.take());
  return measured;
}

// Of numbers in any order; 0 where there are none.
double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  const auto at = static_cast<size_t>(q * static_cast<double>(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(at), values.end());
  return values[at];
}
double mean(const std::vector<double>& values) {
  return values.empty() ? 0
                        : std::accumulate(values.begin(), values.end(), 0.0) /
                              static_cast<double>(values.size());
}

Status bench_engine(const EngineBenchArguments& in) {
  std::optional<Trace> trace;
  if (!in.trace.empty()) trace = ATOM_TRY(read_trace(in.trace));
  const OpenedModel model = ATOM_TRY(open_bench_model("bench engine", in.model));
  const Capacity capacity = ATOM_TRY(find_capacity(in, *model.weights));
  RequestPlan plan = ATOM_TRY(RequestPlan::create({.seed = in.seed,
                                                   .prompt_tokens = in.prompt,
                                                   .max_tokens = in.generate,
                                                   .context = capacity.longest},
                                                  trace ? &*trace : nullptr));
  const std::unique_ptr<Decoder> decoder =
      ATOM_TRY(Decoder::create(*model.backend, model.weights,
                               {.max_tokens = std::max(in.batch_tokens, capacity.sequences),
                                .max_logit_rows = capacity.sequences,
                                .positions = model.weights->prefix_tokens + capacity.longest}));
  Outcome outcome;  // outlives the engine, which calls sinks until it is gone
  const std::unique_ptr<Engine> engine =
      ATOM_TRY(Engine::create(*decoder, capacity.pages,
                              {.max_sequences = capacity.sequences,
                               .max_batch_tokens = decoder->limits().max_tokens,
                               .max_waiting_requests = std::max<int64_t>(1024, in.requests),
                               .max_waiting_tokens = int64_t{1} << 40}));
  Sender sender(in, std::move(plan), model.weights->config.vocab, *engine, outcome);
  const Measured measured = ATOM_TRY(measure_engine(in, capacity, *engine, sender, outcome));

  std::vector<double> first, each;  // seconds of the requests that ended
  for (const RequestEnd& end : measured.ends) {
    first.push_back(seconds_between(end.arrival, end.first_token));
    if (end.generated_tokens < 2) continue;
    each.push_back(seconds_between(end.first_token, end.finished) /
                   static_cast<double>(end.generated_tokens - 1));
  }
  const double generated = measured.share(&EngineStats::generated_tokens);
  const double steps = std::max(1.0, measured.share(&EngineStats::steps));
  const double rate = generated / measured.seconds;
  const double busy = measured.time(&EngineStats::busy_seconds);
  const double overhead = 1 - measured.time(&EngineStats::runner_seconds) / busy;
  const double kv_bytes = static_cast<double>(capacity.pages * capacity.page_bytes);
  const auto weight_bytes = static_cast<double>(model.weights->bytes());
  if (in.json) {
    print_json(
        {{"model", model.origin},
         {"recipe", in.model.recipe},
         {"kv", describe(model.weights->kv)},
         {"device", model.backend->detail()},
         {"threads", thread_count()},
         {"sequences", capacity.sequences},
         {"weight_bytes", weight_bytes},
         {"kv_bytes", kv_bytes},
         {"reserve", in.reserve},
         {"trace", std::filesystem::path(in.trace).filename().string()},
         {"requests", measured.ends.size()},
         {"prompt", in.prompt},
         {"generate", in.generate},
         {"temperature", in.sampling.temperature},
         {"top_k", in.sampling.top_k},
         {"top_p", in.sampling.top_p},
         {"seconds", measured.seconds},
         {"generated_tokens_per_s", rate},
         {"prompt_tokens_per_s", measured.share(&EngineStats::prompt_tokens) / measured.seconds},
         {"time_to_first_token_s", mean(first)},
         {"time_per_token_s", mean(each)},
         {"time_per_token_p50_s", quantile(each, 0.5)},
         {"time_per_token_p99_s", quantile(each, 0.99)},
         {"steps", steps},
         {"step_seconds", busy / steps},
         {"tokens_per_step", generated / steps},
         {"preemptions", measured.share(&EngineStats::preemptions)},
         {"overhead", overhead}});
    return {};
  }
  fmt::print("{} on {}\n", model.origin, model.backend->detail());
  fmt::print("memory       {:10.2f} GB of weights, {:.2f} GB of KV cache\n", weight_bytes * 1e-9,
             kv_bytes * 1e-9);
  fmt::print("generated    {:10.1f} tokens/s   ({} requests, {} at once at most)\n", rate,
             measured.ends.size(), capacity.sequences);
  fmt::print("first token  {:10.1f} ms, mean\n", mean(first) * 1e3);
  fmt::print("each token   {:10.1f} ms, mean   ({:.1f} ms median, {:.1f} ms p99)\n",
             mean(each) * 1e3, quantile(each, 0.5) * 1e3, quantile(each, 0.99) * 1e3);
  fmt::print("step         {:10.2f} ms, of which {:.1f}% the engine's own; {:.1f} tokens\n",
             busy / steps * 1e3, overhead * 100, generated / steps);
  return {};
}

void add_load_options(CLI::App& command, EngineBenchArguments& arguments) {
  command
      .add_option("--trace", arguments.trace,
                  "Lengths of prompts and outputs from a CSV or JSONL file (see bench serve)")
      ->type_name("FILE");
  add_count(command, "--context", arguments.context, 0, 1 << 20,
            "Leave out requests of the trace with more tokens in all (0: 2048)");
  command.add_option("--seed", arguments.seed, "Of the order in which a trace's requests come")
      ->type_name("N")
      ->capture_default_str();
  add_seconds(command, "--seconds", arguments.seconds, 0,
              "Measure so long under steady load (0: until --requests are done)");
  add_seconds(command, "--warmup", arguments.warmup, 0, "Of steady load, before the measurement");
  add_count(command, "--sequences", arguments.sequences, 0, kMostSequences,
            "That run at once (0: all requests, or as many as fit under a cap, at most 256)");
  command
      .add_option("--memory-cap", arguments.memory_cap,
                  "What weights and KV cache may take together: 24GB, 20G")
      ->type_name("SIZE");
  add_count(command, "--reserve", arguments.reserve, 0, 1 << 20,
            "Set aside so many tokens of KV cache for each sequence, instead of pages as needed")
      ->needs("--memory-cap");
}

}  // namespace

void add_bench_engine_command(CLI::App& group, Action& action) {
  CLI::App* command = group.add_subcommand("engine", "Many requests at once, without a server");
  command->footer(
      "All requests arrive at once; their prompts are random tokens. The engine's own part of a\n"
      "step is the time in which the device has nothing of the model to do: what of scheduling,\n"
      "sampling and delivering does not go on beside it. With --seconds\n"
      "requests never run out: as many run as memory has room for, and what is counted is what\n"
      "comes out in that time.\n"
      "\n"
      "Examples:\n"
      "  atom bench engine model-w4a8 --requests 16 --prompt 128 --generate 64 --json\n"
      "  atom bench engine --shape llama-2-7b --device cuda --trace sharegpt.csv --seconds 10 \\\n"
      "      --warmup 5 --memory-cap 24GB --reserve 2048");
  auto arguments = std::make_shared<EngineBenchArguments>();
  add_bench_model_arguments(*command, arguments->model);
  const auto count = [&](const char* name, int64_t& value, int64_t most, const char* text) {
    add_count(*command, name, value, 1, most, text);
  };
  count("--requests", arguments->requests, kMostSequences, "Requests that arrive at once");
  count("--prompt", arguments->prompt, 1 << 20, "Tokens of each prompt");
  count("--generate", arguments->generate, 1 << 20, "Tokens to generate for each");
  add_load_options(*command, *arguments);
  count("--batch-tokens", arguments->batch_tokens, 1 << 16, "Tokens of a step at most");
  SamplingParams& sampling = arguments->sampling;
  command->add_option("--temperature", sampling.temperature, "0: greedy")
      ->check(CLI::Range(0.0, 100.0))
      ->type_name("X")
      ->capture_default_str();
  add_count(*command, "--top-k", sampling.top_k, 0, INT32_MAX,
            "Keep the K most likely tokens; 0: all");
  command->add_option("--top-p", sampling.top_p, "Keep the most likely that reach this probability")
      ->check(CLI::Range(1e-6, 1.0))
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
