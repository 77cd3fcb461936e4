// atom eval tasks: zero-shot accuracy on multiple-choice tasks.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/progress.h"
#include "cli/commands.h"
#include "cli/model_arguments.h"
#include "cli/output.h"
#include "eval/tasks.h"

namespace atom::cli {
namespace {

struct TasksArguments {
  ModelArguments model;
  std::vector<std::string> tasks;
  std::string data = "tasks";
  int64_t limit = 0;
  bool json = false;
};

struct EncodedTask {
  Task task;
  std::vector<Question> questions;
};

Result<std::vector<EncodedTask>> read_tasks(const TasksArguments& arguments,
                                            const OpenedModel& model) {
  std::vector<EncodedTask> tasks;
  for (const std::string& name : arguments.tasks) {
    const std::filesystem::path path = std::filesystem::path(arguments.data) / (name + ".jsonl");
    EncodedTask encoded{ATOM_TRY(read_task(path, name, arguments.limit)), {}};
    encoded.questions =
        ATOM_TRY(encode_task(encoded.task, *model.tokenizer,
                             model.weights->config.context - model.weights->prefix_tokens));
    tasks.push_back(std::move(encoded));
  }
  return tasks;
}

nlohmann::ordered_json figures(const TaskResult& result) {
  nlohmann::ordered_json json = {{"acc", result.acc}, {"acc_stderr", result.acc_stderr}};
  if (result.acc_norm) {
    json["acc_norm"] = *result.acc_norm;
    json["acc_norm_stderr"] = *result.acc_norm_stderr;
  }
  json["n"] = result.n;
  json["seconds"] = result.seconds;
  return json;
}

void print_row(const std::string& name, const TaskResult& result) {
  fmt::print("{:<16} acc {:.4f} +- {:.4f}", name, result.acc, result.acc_stderr);
  if (result.acc_norm) {
    fmt::print("   acc_norm {:.4f} +- {:.4f}", *result.acc_norm, *result.acc_norm_stderr);
  }
  fmt::print("   ({} items, {})\n", result.n, format_duration(result.seconds));
}

Status tasks(const TasksArguments& arguments) {
  const OpenedModel model = ATOM_TRY(open_model(arguments.model));
  const std::vector<EncodedTask> tasks = ATOM_TRY(read_tasks(arguments, model));
  size_t longest = 1;
  size_t most_choices = 1;
  int64_t items = 0;
  for (const EncodedTask& task : tasks) {
    items += static_cast<int64_t>(task.questions.size());
    for (const Question& question : task.questions) {
      most_choices = std::max(most_choices, question.size());
      for (const ScoredText& text : question) longest = std::max(longest, text.tokens.size());
    }
  }
  const auto longest_tokens = static_cast<int64_t>(longest);
  const std::unique_ptr<Decoder> decoder =
      ATOM_TRY(Decoder::create(*model.backend, model.weights,
                               choice_scorer_limits(model.weights->prefix_tokens, longest_tokens)));
  const std::unique_ptr<ChoiceScorer> scorer =
      ATOM_TRY(ChoiceScorer::create(*decoder, longest_tokens, static_cast<int64_t>(most_choices)));

  nlohmann::ordered_json results;
  std::vector<std::pair<std::string, TaskResult>> rows;
  {
    Progress progress("tasks", items);
    for (const EncodedTask& task : tasks) {
      progress.note(task.task.name);
      TaskResult result = ATOM_TRY(measure_task(*scorer, task.task, task.questions,
                                                [&](int64_t count) { progress.advance(count); }));
      results[task.task.name] = figures(result);
      rows.emplace_back(task.task.name, std::move(result));
    }
  }
  if (arguments.json) {
    print_json({{"model", arguments.model.path},
                {"device", model.backend->detail()},
                {"tasks", std::move(results)}});
    return {};
  }
  for (const auto& [name, result] : rows) print_row(name, result);
  return {};
}

}  // namespace

void add_eval_tasks_command(CLI::App& group, Action& action) {
  CLI::App* command = group.add_subcommand(
      "tasks", "Zero-shot accuracy on multiple-choice tasks; higher is better");
  command->footer(
      "Each task is a file NAME.jsonl in --data, one item a line:\n"
      "  {\"query\": ..., \"choices\": [...], \"gold\": index}\n"
      "  {\"context_options\": [...], \"continuation\": ..., \"gold\": index}   (winogrande)\n"
      "The choice that the model finds the most likely is its answer; acc_norm divides the\n"
      "log-likelihood by the choice's characters. Prompts, tokenization and figures are those of\n"
      "lm-eval: a query that is a question gets \"Answer:\" on a new line.\n"
      "\n"
      "Example:\n"
      "  atom eval tasks model-w4a8 --tasks piqa,arc_easy --data tasks --limit 200 --json");
  auto arguments = std::make_shared<TasksArguments>();
  add_model_arguments(*command, arguments->model);
  command->add_option("--tasks", arguments->tasks, "Names of tasks, with commas between")
      ->required()
      ->delimiter(',')
      ->type_name("NAMES");
  command->add_option("--data", arguments->data, "The folder with the tasks' files")
      ->type_name("FOLDER")
      ->capture_default_str();
  command->add_option("--limit", arguments->limit, "Only the first N items of each task")
      ->check(CLI::Range(1, 1 << 30))
      ->type_name("N");
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->callback([arguments, &action] { action = [arguments] { return tasks(*arguments); }; });
}

}  // namespace atom::cli
