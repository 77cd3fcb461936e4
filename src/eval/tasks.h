// Zero-shot multiple-choice tasks: of several texts, the model should find the right one the most
// likely. Prompts, tokenization and figures are those of EleutherAI's lm-evaluation-harness.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "eval/choice_scorer.h"
#include "model/decoder.h"
#include "text/tokenizer.h"

namespace atom {

struct TaskChoice {
  std::string context;
  std::string continuation;  // whose likelihood counts
  int64_t characters = 0;    // of the choice, which acc_norm divides by; 0: there is no acc_norm
};
struct TaskItem {
  std::vector<TaskChoice> choices;
  size_t gold = 0;
};
struct Task {
  std::string name;
  std::vector<TaskItem> items;
};

// Reads a file of JSON lines: {"query", "choices", "gold"}, where a query that ends in a question
// gets "\nAnswer:" behind it, or {"context_options", "continuation", "gold"}, where the contexts
// are the choices (winogrande). limit: only the first so many items; 0: all. Fails with file and
// line.
Result<Task> read_task(const std::filesystem::path& path, std::string name, int64_t limit);

// Encodes context and continuation as one text and cuts where the context alone would end; blanks
// at the context's end count as part of the continuation. No BOS.
Result<ScoredText> encode_choice(const Tokenizer& tokenizer, const TaskChoice& choice);

struct TaskResult {
  int64_t n = 0;
  double acc = 0;  // share of items whose right choice is the most likely
  double acc_stderr = 0;
  std::optional<double> acc_norm;  // the same, log-likelihoods divided by the choices' characters
  std::optional<double> acc_norm_stderr;
  std::vector<std::vector<double>> log_likelihoods;  // by item and choice, in nats
  double seconds = 0;
};

// A task's items as tokens. What is longer than the model's context loses its beginning.
Result<std::vector<Question>> encode_task(const Task& task, const Tokenizer& tokenizer,
                                          int64_t longest_tokens);

// on_items: called with the number of items that were finished since the last call. Fails where a
// likelihood is not finite, and (kCancelled) on Ctrl-C.
Result<TaskResult> measure_task(ChoiceScorer& scorer, const Task& task,
                                const std::vector<Question>& questions,
                                const std::function<void(int64_t)>& on_items = {});

}  // namespace atom
