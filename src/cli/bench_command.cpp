// atom bench model: tokens a second of one sequence, prompt and generation apart.
#include <fmt/core.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "base/interrupt.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "base/random.h"
#include "cli/commands.h"
#include "cli/model_arguments.h"
#include "cli/output.h"
#include "model/batching.h"
#include "model/decoder.h"

namespace atom::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kBatchTokens = 512;
constexpr int64_t kMaxTokens = 1 << 20;

struct BenchArguments {
  ModelArguments model;
  int64_t prompt = 512;
  int64_t generate = 128;
  int64_t depth = 0;
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

// One sequence on a decoder, with a cache for as many tokens as it may ever hold.
class Bench {
 public:
  static Result<Bench> create(Decoder& decoder, int64_t tokens) {
    Bench bench(decoder);
    bench.pages_.resize(static_cast<size_t>((tokens + kPageTokens - 1) / kPageTokens));
    std::iota(bench.pages_.begin(), bench.pages_.end(), 0);
    bench.cache_ = ATOM_TRY(
        decoder.make_cache(std::max<int64_t>(1, static_cast<int64_t>(bench.pages_.size()))));
    bench.logits_ = ATOM_TRY(decoder.backend().make_tensor(1, decoder.config().vocab));
    return bench;
  }

  // Runs `count` arbitrary tokens behind the first `past` ones, at most `step` in a batch; wants
  // the logits of each batch's last token, as generating does.
  Status run(int64_t past, int64_t count, int64_t step) {
    for (int64_t done = 0; done < count;) {
      ATOM_TRY(check_interrupted());
      const int64_t now = std::min(step, count - done);
      std::vector<int32_t> tokens(static_cast<size_t>(now));
      for (int32_t& token : tokens) {
        token = static_cast<int32_t>(random_.below(decoder_->config().vocab));
      }
      Batch batch;
      add_sequence(batch, tokens, past + done, pages_, decoder_->weights().prefix_tokens);
      batch.logit_rows = {static_cast<int32_t>(now - 1)};
      ATOM_TRY(decoder_->forward(batch, *cache_, *logits_));
      done += now;
    }
    return {};
  }

 private:
  explicit Bench(Decoder& decoder) : decoder_(&decoder) {}
  Decoder* decoder_;
  std::vector<int32_t> pages_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Tensor> logits_;
  Random random_{1};
};

// Tokens a second, the median of several runs after one that warms up.
Result<double> measure(Bench& bench, const BenchArguments& arguments, int64_t count, int64_t step,
                       Progress& progress) {
  if (count == 0) return 0.0;
  std::vector<double> rates;
  for (int i = 0; i <= arguments.repeat; ++i) {
    const auto start = Clock::now();
    ATOM_TRY(bench.run(arguments.depth, count, step));
    if (i > 0) rates.push_back(static_cast<double>(count) / seconds_since(start));
    progress.advance();
  }
  return median(rates);
}

Status bench_model(const BenchArguments& arguments) {
  const int64_t tokens = arguments.depth + std::max(arguments.prompt, arguments.generate);
  const auto start = Clock::now();
  const OpenedModel model = ATOM_TRY(open_model(arguments.model));
  const std::unique_ptr<Decoder> decoder = ATOM_TRY(
      Decoder::create(*model.backend, model.weights,
                      {.max_tokens = kBatchTokens,
                       .max_logit_rows = 1,
                       .positions = model.weights->prefix_tokens + std::max<int64_t>(1, tokens)}));
  const double load_seconds = seconds_since(start);
  Bench bench = ATOM_TRY(Bench::create(*decoder, tokens));
  double prompt_rate = 0, generate_rate = 0;
  {
    Progress progress("measuring", 2 * (arguments.repeat + 1));
    ATOM_TRY(bench.run(0, arguments.depth, kBatchTokens));
    prompt_rate = ATOM_TRY(measure(bench, arguments, arguments.prompt, kBatchTokens, progress));
    generate_rate = ATOM_TRY(measure(bench, arguments, arguments.generate, 1, progress));
  }
  if (arguments.json) {
    print_json({{"model", arguments.model.path},
                {"device", model.backend->detail()},
                {"threads", thread_count()},
                {"prompt", arguments.prompt},
                {"generate", arguments.generate},
                {"depth", arguments.depth},
                {"repeat", arguments.repeat},
                {"prompt_tokens_per_s", prompt_rate},
                {"generate_tokens_per_s", generate_rate},
                {"load_seconds", load_seconds},
                {"peak_rss_bytes", peak_rss_bytes()}});
    return {};
  }
  fmt::print("{} on {}\n", arguments.model.path, model.backend->detail());
  const std::string depth =
      arguments.depth > 0 ? fmt::format(" behind {} tokens", arguments.depth) : std::string();
  if (arguments.prompt > 0) {
    fmt::print("prompt      {:10.1f} tokens/s   ({} tokens{})\n", prompt_rate, arguments.prompt,
               depth);
  }
  if (arguments.generate > 0) {
    fmt::print("generation  {:10.1f} tokens/s   ({} tokens{})\n", generate_rate, arguments.generate,
               depth);
  }
  fmt::print("load        {:10.2f} s\n", load_seconds);
  fmt::print("memory      {:10.1f} MB at most\n", static_cast<double>(peak_rss_bytes()) / 1e6);
  return {};
}

}  // namespace

void add_bench_command(CLI::App& app, Action& action) {
  CLI::App* group = app.add_subcommand("bench", "Measure speed");
  group->require_subcommand(1);
  CLI::App* command = group->add_subcommand("model", "Tokens a second of one sequence");
  command->footer(
      "Runs a prompt in batches, then generation token by token, each behind --depth tokens\n"
      "that are in the KV cache already. The figures are medians over the repetitions, after\n"
      "one that warms up.\n"
      "\n"
      "Example:\n"
      "  atom bench model model-w4a8 --prompt 512 --generate 128 --threads 2 --json");
  auto arguments = std::make_shared<BenchArguments>();
  add_model_arguments(*command, arguments->model);
  const auto count = [&](const char* name, int64_t& value, const char* text) {
    command->add_option(name, value, text)
        ->check(CLI::Range(int64_t{0}, kMaxTokens))
        ->type_name("N")
        ->capture_default_str();
  };
  count("--prompt", arguments->prompt, "Tokens of the prompt");
  count("--generate", arguments->generate, "Tokens to generate");
  count("--depth", arguments->depth, "Tokens that come before, in the KV cache");
  command->add_option("--repeat", arguments->repeat, "Repetitions")
      ->check(CLI::Range(1, 1000))
      ->type_name("N")
      ->capture_default_str();
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->callback(
      [arguments, &action] { action = [arguments] { return bench_model(*arguments); }; });
  add_bench_serve_command(*group, action);
}

}  // namespace atom::cli
