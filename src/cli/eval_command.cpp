// atom eval ppl: how well a model predicts a text.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/model_arguments.h"
#include "cli/output.h"
#include "eval/perplexity.h"
#include "eval/rolling.h"

namespace atom::cli {
namespace {

struct PerplexityArguments {
  ModelArguments model;
  PerplexityOptions options;
  std::string text;
  bool rolling = false;
  bool json = false;
};

Result<PerplexityResult> run_with_progress(Decoder& decoder, std::span<const int32_t> tokens,
                                           const PerplexityOptions& options) {
  Progress progress("perplexity", count_windows(static_cast<int64_t>(tokens.size()), options));
  double sum = 0;
  return measure_perplexity(decoder, tokens, options, [&](int64_t window, double loss) {
    sum += loss;
    progress.note(
        fmt::format("perplexity {:.4f}", std::exp(sum / static_cast<double>(window + 1))));
    progress.advance();
  });
}

// Every token of the text, as one document.
Status rolling(const PerplexityArguments& arguments, const OpenedModel& model,
               std::span<const int32_t> tokens, size_t bytes) {
  const Tokenizer& tokenizer = *model.tokenizer;
  const int32_t start = tokenizer.bos_id() >= 0 ? tokenizer.bos_id() : tokenizer.eos_id();
  if (start < 0) {
    return error(ErrorCode::kUnsupported,
                 "{}: the tokenizer has neither BOS nor EOS, one of which --rolling begins with",
                 model.origin);
  }
  if (tokens.empty()) {
    return error(ErrorCode::kInvalidArgument, "{}: has no text", arguments.text);
  }
  const int64_t context = arguments.options.context;
  const std::vector<ScoredText> windows = rolling_windows(tokens, start, context);
  const std::unique_ptr<Decoder> decoder = ATOM_TRY(Decoder::create(
      *model.backend, model.weights, rolling_limits(model.weights->prefix_tokens, context)));
  double likelihood = 0;
  {
    Progress progress("perplexity", static_cast<int64_t>(windows.size()));
    likelihood = ATOM_TRY(
        rolling_log_likelihood(*decoder, windows, [&](int64_t count) { progress.advance(count); }));
  }
  const double a_token = -likelihood / static_cast<double>(tokens.size());
  const double a_byte = -likelihood / static_cast<double>(bytes);
  if (arguments.json) {
    print_json({{"model", arguments.model.path},
                {"text", arguments.text},
                {"context", context},
                {"device", model.backend->detail()},
                {"log_likelihood", likelihood},
                {"tokens", tokens.size()},
                {"bytes", bytes},
                {"perplexity", json_number(std::exp(a_token))},
                {"byte_perplexity", json_number(std::exp(a_byte))},
                {"bits_per_byte", a_byte / std::log(2.0)}});
    return {};
  }
  fmt::print("perplexity {:.4f} a token, {:.4f} a byte   (log-likelihood {:.3f}, {} tokens)\n",
             std::exp(a_token), std::exp(a_byte), likelihood, tokens.size());
  return {};
}

Status perplexity(const PerplexityArguments& arguments) {
  const std::string text = ATOM_TRY(read_text_file(arguments.text, kMaxTextBytes));
  const OpenedModel model = ATOM_TRY(open_model(arguments.model));
  // The text as it is, without a BOS: windows after the first would have none either.
  const std::vector<int32_t> tokens =
      ATOM_TRY(model.tokenizer->encode(text, /*add_special=*/false, /*parse_special=*/false));
  if (arguments.rolling) return rolling(arguments, model, tokens, text.size());
  const std::unique_ptr<Decoder> decoder =
      ATOM_TRY(Decoder::create(*model.backend, model.weights,
                               perplexity_limits(model.weights->prefix_tokens, arguments.options)));
  if (count_windows(static_cast<int64_t>(tokens.size()), arguments.options) == 0) {
    return error(ErrorCode::kInvalidArgument, "{}: has {} tokens, a window needs {}",
                 arguments.text, tokens.size(), arguments.options.context);
  }
  const PerplexityResult result = ATOM_TRY(run_with_progress(*decoder, tokens, arguments.options));
  if (arguments.json) {
    print_json({{"model", arguments.model.path},
                {"text", arguments.text},
                {"context", arguments.options.context},
                {"device", model.backend->detail()},
                {"perplexity", json_number(result.perplexity)},
                {"tokens", result.tokens},
                {"windows", result.windows},
                {"seconds", result.seconds},
                {"window_losses", result.window_losses}});
    return {};
  }
  fmt::print("perplexity {:.4f}   ({} windows of {} tokens, {})\n", result.perplexity,
             result.windows, arguments.options.context, format_duration(result.seconds));
  return {};
}

}  // namespace

void add_eval_command(CLI::App& app, Action& action) {
  CLI::App* group = app.add_subcommand("eval", "Measure how good a model is");
  group->require_subcommand(1);
  add_eval_tasks_command(*group, action);
  CLI::App* command =
      group->add_subcommand("ppl", "Perplexity of a model on a text; lower is better");
  command->footer(
      "The text is cut into windows of --context tokens, the remainder is dropped, and each\n"
      "token of a window is predicted from those before it. The figure is the exponential of\n"
      "the mean loss over the windows. Compare models on the same text and context only.\n"
      "\n"
      "With --rolling the text is one document and every token counts, the first predicted from\n"
      "BOS: the log-likelihood is that of lm-eval's loglikelihood_rolling with max_length two\n"
      "more than --context.\n"
      "\n"
      "Examples:\n"
      "  atom eval ppl model-w4a8 --text wikitext.txt --windows 16 --json\n"
      "  atom eval ppl model-w4a8 --text document.txt --rolling --context 2046");
  auto arguments = std::make_shared<PerplexityArguments>();
  add_model_arguments(*command, arguments->model);
  command->add_option("--text", arguments->text, "The text, UTF-8")->required()->type_name("FILE");
  command->add_option("--context", arguments->options.context, "Tokens of a window")
      ->check(CLI::Range(2, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
  auto* windows =
      command->add_option("--windows", arguments->options.max_windows, "Only the first N windows");
  windows->check(CLI::Range(1, 1 << 30))->type_name("N");
  command->add_flag("--rolling", arguments->rolling, "Score every token of the text")
      ->excludes(windows);
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->callback(
      [arguments, &action] { action = [arguments] { return perplexity(*arguments); }; });
}

}  // namespace atom::cli
