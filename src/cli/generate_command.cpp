// atom generate: one text, streamed to stdout as it comes.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "app/chat.h"
#include "cli/commands.h"
#include "cli/constraint_arguments.h"
#include "cli/model_arguments.h"
#include "cli/sampling_arguments.h"
#include "engine/generator.h"
#include "text/detokenizer.h"

namespace atom::cli {
namespace {

struct GenerateArguments {
  ModelArguments model;
  SamplingArguments sampling;
  ConstraintArguments constraint;
  std::string prompt;
  bool raw = false;
};

Result<std::vector<int32_t>> prompt_tokens(const OpenedModel& model, const std::string& prompt,
                                           bool raw) {
  if (raw || model.chat_template.empty()) {
    return without_prefix(
        ATOM_TRY(model.tokenizer->encode(prompt, /*add_special=*/true, /*parse_special=*/false)),
        model.prefix_tokens);
  }
  const ChatEncoder encoder = ATOM_TRY(ChatEncoder::create(model));
  const ChatMessage message{.role = "user", .content = prompt};
  return encoder.encode({&message, 1});
}

Status generate(const GenerateArguments& in) {
  ATOM_TRY(validate(in.sampling.params));
  std::string prompt = in.prompt;
  if (prompt == "-") prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  const OpenedModel model = ATOM_TRY(open_model(in.model));
  const std::vector<int32_t> tokens = ATOM_TRY(prompt_tokens(model, prompt, in.raw));
  const auto constraint = ATOM_TRY(make_constraint(in.constraint, model));
  const int64_t context = std::min(model.weights->config.context,
                                   static_cast<int64_t>(tokens.size()) + in.sampling.max_tokens);
  const std::unique_ptr<Decoder> decoder = ATOM_TRY(
      Decoder::create(*model.backend, model.weights,
                      {.max_logit_rows = 1, .positions = model.weights->prefix_tokens + context}));
  const std::unique_ptr<Generator> generator = ATOM_TRY(Generator::create(*decoder, context));

  IncrementalDetokenizer detokenizer(*model.tokenizer, /*skip_special=*/true,
                                     /*at_text_start=*/false);
  const auto show = [](const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    return std::ferror(stdout) == 0;
  };
  const Result<Generation> generation =
      generator->generate(tokens,
                          {.max_tokens = in.sampling.max_tokens,
                           .sampling = in.sampling.params,
                           .constraint = constraint},
                          [&](int32_t token) { return show(detokenizer.push(token)); });
  const bool stopped = generation.status().code() == ErrorCode::kCancelled;
  if (!generation.ok() && !stopped) return generation.status();
  show(detokenizer.finish() + "\n");
  if (stopped) return generation.status();
  const auto count = static_cast<double>(generation->tokens.size());
  fmt::print(stderr, "\n{} tokens in the prompt ({:.1f}/s), {} generated ({:.1f}/s){}\n",
             generation->prompt_tokens,
             static_cast<double>(generation->prompt_tokens) / generation->prefill_seconds,
             generation->tokens.size(), count < 2 ? 0.0 : (count - 1) / generation->decode_seconds,
             generation->finish == FinishReason::kLength ? ", stopped at the limit" : "");
  return {};
}

}  // namespace

void add_generate_command(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("generate", "Answer a prompt, or continue a text");
  command->footer(
      "A model with a chat template gets the prompt as a message of the user; another one\n"
      "continues the text, and --raw always does. The answer is streamed to stdout.\n"
      "\n"
      "Examples:\n"
      "  atom generate model-w4a8 \"Why is the sky blue?\"\n"
      "  atom generate model-w4a8 \"The capital of France is\" --raw --temperature 0\n"
      "  atom generate model-w4a8 - < prompt.txt\n"
      "  atom generate model-w4a8 \"Describe a cat.\" --schema cat.json");
  auto arguments = std::make_shared<GenerateArguments>();
  add_model_arguments(*command, arguments->model);
  command->add_option("PROMPT", arguments->prompt, "The text; - reads it from stdin")
      ->required()
      ->type_name("");
  command->add_flag("--raw", arguments->raw, "Continue the text, without the chat template");
  add_sampling_arguments(*command, arguments->sampling);
  add_constraint_arguments(*command, arguments->constraint);
  command->callback(
      [arguments, &action] { action = [arguments] { return generate(*arguments); }; });
}

}  // namespace atom::cli
