// atom bench model: tokens a second of some sequences side by side, prompts and generation apart.
#include <fmt/core.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "base/interrupt.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "base/random.h"
#include "cli/bench_model.h"
#include "cli/commands.h"
#include "cli/number_options.h"
#include "cli/output.h"
#include "model/batching.h"
#include "model/decoder.h"

namespace atom::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kMaxSequences = 512;

struct BenchArguments {
  BenchModelArguments model;
  int64_t chunk = 512;
  int64_t prompt = 512;
  int64_t generate = 128;
  int64_t depth = 0;
  std::vector<int64_t> batches = {1};
  int repeat = 5;
  bool json = false;
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

int64_t peak_rss_bytes() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

// Sequences on a decoder, with a cache for as many tokens as each may ever hold.
class Bench {
 public:
  static Result<Bench> create(Decoder& decoder, int64_t sequences, int64_t tokens) {
    Bench bench(decoder, sequences, std::max<int64_t>(1, (tokens + kPageTokens - 1) / kPageTokens));
    std::iota(bench.pages_.begin(), bench.pages_.end(), 0);
    bench.cache_ = ATOM_TRY(decoder.make_cache(static_cast<int64_t>(bench.pages_.size())));
    bench.logits_ = ATOM_TRY(decoder.backend().make_tensor(sequences, decoder.config().vocab));
    return bench;
  }

  // A prompt of `count` tokens behind the first `past` ones of each of the first `sequences`, one
  // sequence after another in batches of the decoder's size.
  Status prompts(int64_t sequences, int64_t past, int64_t count) {
    for (int64_t s = 0; s < sequences; ++s) {
      const int64_t chunk = decoder_->limits().max_tokens;
      for (int64_t done = 0; done < count; done += chunk) {
        batch_.clear();
        add(s, past + done, std::min(chunk, count - done));
        ATOM_TRY(forward());
      }
    }
    wait();
    return {};
  }

  // `count` steps of one token for every sequence at once.
  Status generate(int64_t past, int64_t count) {
    for (int64_t done = 0; done < count; ++done) {
      batch_.clear();
      for (int64_t s = 0; s < sequences_; ++s) add(s, past + done, 1);
      ATOM_TRY(forward());
    }
    wait();
    return {};
  }

 private:
  Bench(Decoder& decoder, int64_t sequences, int64_t sequence_pages)
      : decoder_(&decoder),
        sequences_(sequences),
        sequence_pages_(sequence_pages),
        pages_(static_cast<size_t>(sequences * sequence_pages)) {}

  // Arbitrary tokens of sequence s; wants the logits of the last one, as generating does.
  void add(int64_t s, int64_t past, int64_t count) {
    tokens_.resize(static_cast<size_t>(count));
    for (int32_t& token : tokens_) {
      token = static_cast<int32_t>(random_.below(decoder_->config().vocab));
    }
    const auto pages = std::span<const int32_t>(pages_).subspan(
        static_cast<size_t>(s * sequence_pages_), static_cast<size_t>(sequence_pages_));
    add_sequence(batch_, tokens_, past, pages, decoder_->weights().prefix_tokens);
    batch_.logit_rows.push_back(static_cast<int32_t>(batch_.size() - 1));
  }

  Status forward() {
    ATOM_TRY(check_interrupted());
    return decoder_->forward(batch_, *cache_, *logits_);
  }

  // Until the machine has done all that was asked of it.
  void wait() {
    row_.resize(static_cast<size_t>(decoder_->config().vocab));
    decoder_->backend().read(*logits_, 1, row_);
  }

  Decoder* decoder_;
  int64_t sequences_, sequence_pages_;
  std::vector<int32_t> pages_;  // [sequences, sequence_pages]
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Tensor> logits_;
  Batch batch_;
  std::vector<int32_t> tokens_;
  std::vector<float> row_;
  Random random_{1};
};

// Tokens a second of a run that takes `tokens` of them, the median of several after one that warms
// up.
template <class Run>
Result<double> measure(int repeat, int64_t tokens, Progress& progress, Run&& run) {
  if (tokens == 0) return 0.0;
  std::vector<double> rates;
  for (int i = 0; i <= repeat; ++i) {
    const auto start = Clock::now();
    ATOM_TRY(run());
    if (i > 0) rates.push_back(static_cast<double>(tokens) / seconds_since(start));
    progress.advance();
  }
  return median(rates);
}

// What one number of sequences gave.
struct Rates {
  int64_t batch = 0;
  double prompt = 0, generate = 0;  // tokens/s
};

// Tokens that each sequence may hold.
int64_t sequence_tokens(const BenchArguments& arguments) {
  return arguments.depth + std::max(arguments.prompt, arguments.generate);
}

Result<Rates> measure_batch(const BenchArguments& arguments, Decoder& decoder, int64_t batch,
                            Progress& progress) {
  Bench bench = ATOM_TRY(Bench::create(decoder, batch, sequence_tokens(arguments)));
  ATOM_TRY(bench.prompts(batch, 0, arguments.depth));
  Rates rates = {.batch = batch};
  rates.prompt = ATOM_TRY(measure(arguments.repeat, arguments.prompt, progress, [&] {
    return bench.prompts(1, arguments.depth, arguments.prompt);
  }));
  rates.generate = ATOM_TRY(measure(arguments.repeat, batch * arguments.generate, progress, [&] {
    return bench.generate(arguments.depth, arguments.generate);
  }));
  return rates;
}

nlohmann::ordered_json describe_run(const BenchArguments& arguments, const OpenedModel& model,
                                    double load_seconds, const Rates& rates) {
  return {{"model", model.origin},
          {"kv", describe(model.weights->kv)},
          {"weight_bytes", model.weights->bytes()},
          {"device", model.backend->detail()},
          {"threads", thread_count()},
          {"layers", model.weights->config.layers},
          {"prompt", arguments.prompt},
          {"generate", arguments.generate},
          {"depth", arguments.depth},
          {"batch", rates.batch},
          {"chunk", arguments.chunk},
          {"repeat", arguments.repeat},
          {"prompt_tokens_per_s", rates.prompt},
          {"generate_tokens_per_s", rates.generate},
          {"load_seconds", load_seconds},
          {"peak_rss_bytes", peak_rss_bytes()}};
}

void print_rates(const BenchArguments& arguments, const Rates& rates) {
  const std::string depth =
      arguments.depth > 0 ? fmt::format(" behind {} tokens", arguments.depth) : std::string();
  const std::string each =
      rates.batch > 1 ? fmt::format(" of {} sequences each", rates.batch) : std::string();
  if (arguments.prompt > 0) {
    fmt::print("prompt      {:10.1f} tokens/s   ({} tokens{})\n", rates.prompt, arguments.prompt,
               depth);
  }
  if (arguments.generate > 0) {
    fmt::print("generation  {:10.1f} tokens/s   ({} tokens{}{})\n", rates.generate,
               arguments.generate, each, depth);
  }
}

Status bench_model(const BenchArguments& arguments) {
  const int64_t tokens = sequence_tokens(arguments);
  const int64_t most = *std::max_element(arguments.batches.begin(), arguments.batches.end());
  const auto start = Clock::now();
  const OpenedModel model = ATOM_TRY(open_bench_model("bench model", arguments.model));
  const std::unique_ptr<Decoder> decoder = ATOM_TRY(
      Decoder::create(*model.backend, model.weights,
                      {.max_tokens = std::max(arguments.chunk, most),
                       .max_logit_rows = most,
                       .positions = model.weights->prefix_tokens + std::max<int64_t>(1, tokens)}));
  const double load_seconds = seconds_since(start);
  std::vector<Rates> all;
  {
    Progress progress("measuring",
                      2 * (arguments.repeat + 1) * static_cast<int64_t>(arguments.batches.size()));
    for (const int64_t batch : arguments.batches) {
      all.push_back(ATOM_TRY(measure_batch(arguments, *decoder, batch, progress)));
    }
  }
  if (arguments.json) {
    nlohmann::ordered_json runs = nlohmann::ordered_json::array();
    for (const Rates& rates : all) {
      runs.push_back(describe_run(arguments, model, load_seconds, rates));
    }
    print_json(runs.size() == 1 ? runs.front() : nlohmann::ordered_json{{"runs", runs}});
    return {};
  }
  fmt::print("{} on {}\n", model.origin, model.backend->detail());
  for (const Rates& rates : all) print_rates(arguments, rates);
  fmt::print("load        {:10.2f} s          ({:.2f} GB of weights, {:.2f} GB/s)\n", load_seconds,
             static_cast<double>(model.weights->bytes()) / 1e9,
             static_cast<double>(model.weights->bytes()) / 1e9 / load_seconds);
  fmt::print("memory      {:10.1f} MB at most\n", static_cast<double>(peak_rss_bytes()) / 1e6);
  return {};
}

}  // namespace

void add_bench_command(CLI::App& app, Action& action) {
  CLI::App* group = app.add_subcommand("bench", "Measure speed");
  group->require_subcommand(1);
  CLI::App* command =
      group->add_subcommand("model", "Tokens a second of prompts and of generation");
  command->footer(
      "Runs a prompt in batches, then generation token by token, each behind --depth tokens\n"
      "that are in the KV cache already. With --batch, that many sequences generate side by\n"
      "side, as in serving, and the figure counts the tokens of all; prompts run one after\n"
      "another, so one is measured. Figures are medians over the repetitions, after one that\n"
      "warms up.\n"
      "\n"
      "Example:\n"
      "  atom bench model model-w4a8 --prompt 512 --generate 128 --threads 2 --json");
  auto arguments = std::make_shared<BenchArguments>();
  add_bench_model_arguments(*command, arguments->model);
  const auto count = [&](const char* name, int64_t& value, const char* text) {
    add_count(*command, name, value, 0, kMaxTokens, text);
  };
  count("--prompt", arguments->prompt, "Tokens of the prompt");
  count("--generate", arguments->generate, "Tokens to generate");
  count("--depth", arguments->depth, "Tokens that come before, in the KV cache");
  add_count(*command, "--chunk", arguments->chunk, 1, kMaxTokens,
            "Tokens of a prompt that run in one batch");
  command
      ->add_option("--batch", arguments->batches,
                   "Sequences side by side; several numbers, as in 1,8,64, are measured in turn")
      ->check(CLI::Range(int64_t{1}, kMaxSequences))
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--repeat", arguments->repeat, "Repetitions")
      ->check(CLI::Range(1, 1000))
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--json", arguments->json,
                    "Print one JSON object; with several --batch its \"runs\" are such");
  command->callback(
      [arguments, &action] { action = [arguments] { return bench_model(*arguments); }; });
  add_bench_kernels_command(*group, action);
  add_bench_serve_command(*group, action);
  add_bench_engine_command(*group, action);
  add_bench_quantize_command(*group, action);
  add_bench_tokenizer_command(*group, action);
}

}  // namespace atom::cli
