#include "eval/tasks.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "base/json.h"

namespace atom {
namespace {

constexpr size_t kMaxChoices = 64;

int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

// "Question: ..." is followed by "Answer:", other queries by their continuation.
std::string with_answer(std::string query) {
  const bool asks =
      query.starts_with("Question:") || query.find("\nQuestion:") != std::string::npos;
  if (!asks) return query;
  while (!query.empty() && query.back() == '\n') query.pop_back();
  return query + "\nAnswer:";
}

Result<std::vector<std::string>> read_strings(const JsonView& list) {
  std::vector<std::string> strings;
  if (!list.is_array() || list.size() < 2 || list.size() > kMaxChoices) {
    return error(ErrorCode::kCorrupt, "{}: expected an array of 2..{} texts", list.place(),
                 kMaxChoices);
  }
  for (size_t i = 0; i < list.size(); ++i) {
    strings.push_back(ATOM_TRY(ATOM_TRY(list.at(i)).as_string()));
  }
  return strings;
}

Result<TaskItem> read_item(std::string_view line, const std::string& place) {
  const Json json = ATOM_TRY(parse_json(line, place));
  const JsonView view(json, place);
  TaskItem item;
  if (view.has("context_options")) {
    // The blank belongs to the continuation, as between a query and its choices.
    const std::string continuation = " " + ATOM_TRY(view.get_string("continuation"));
    for (std::string& context : ATOM_TRY(read_strings(ATOM_TRY(view.at("context_options"))))) {
      item.choices.push_back({std::move(context), continuation, 0});
    }
  } else {
    const std::string context = with_answer(ATOM_TRY(view.get_string("query")));
    for (const std::string& choice : ATOM_TRY(read_strings(ATOM_TRY(view.at("choices"))))) {
      item.choices.push_back(
          {context, " " + choice, std::max<int64_t>(1, count_characters(choice))});
    }
  }
  const auto last = static_cast<int64_t>(item.choices.size()) - 1;
  item.gold = static_cast<size_t>(ATOM_TRY(view.get_int("gold", 0, last)));
  return item;
}

// The standard error of a share, as of the mean of a sample.
double standard_error(double share, int64_t n) {
  return n < 2 ? 0.0 : std::sqrt(share * (1.0 - share) / static_cast<double>(n - 1));
}

// Whether the choice with the highest score is the right one; of equal ones the first counts.
bool is_right(std::span<const double> scores, size_t gold) {
  return static_cast<size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin()) ==
         gold;
}

}  // namespace

Result<Task> read_task(const std::filesystem::path& path, std::string name, int64_t limit) {
  constexpr size_t kMaxFileBytes = size_t{1} << 30;
  const std::string text = ATOM_TRY(read_text_file(path, kMaxFileBytes));
  Task task{std::move(name), {}};
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    task.items.push_back(
        ATOM_TRY(read_item(line, fmt::format("{}: line {}", path.string(), number))));
    if (limit > 0 && static_cast<int64_t>(task.items.size()) == limit) break;
  }
  if (task.items.empty()) {
    return error(ErrorCode::kInvalidArgument, "{}: no items", path.string());
  }
  return task;
}

Result<ScoredText> encode_choice(const Tokenizer& tokenizer, const TaskChoice& choice) {
  const auto encode = [&](const std::string& text) {
    return tokenizer.encode(text, /*add_special=*/false, /*parse_special=*/false);
  };
  std::string context = choice.context;
  const size_t kept = context.find_last_not_of(" \t\n\r\v\f") + 1;  // 0 where there is none
  context.resize(kept);
  ScoredText text;
  text.tokens = ATOM_TRY(encode(choice.context + choice.continuation));
  text.begin = ATOM_TRY(encode(context)).size();
  if (text.begin == 0 || text.begin >= text.tokens.size()) {
    return error(ErrorCode::kInvalidArgument,
                 "the context '{}' and its continuation '{}' need a token each", choice.context,
                 choice.continuation);
  }
  return text;
}

Result<std::vector<Question>> encode_task(const Task& task, const Tokenizer& tokenizer,
                                          int64_t longest_tokens) {
  std::vector<Question> questions;
  for (size_t i = 0; i < task.items.size(); ++i) {
    Question question;
    for (const TaskChoice& choice : task.items[i].choices) {
      Result<ScoredText> encoded = encode_choice(tokenizer, choice);
      if (!encoded.ok()) {
        return encoded.status().with_context(fmt::format("{}: item {}", task.name, i));
      }
      ScoredText text = std::move(encoded).value();
      const auto most = static_cast<size_t>(longest_tokens);
      if (text.tokens.size() > most) {
        const size_t dropped = text.tokens.size() - most;
        if (text.begin <= dropped) {
          return error(ErrorCode::kInvalidArgument,
                       "{}: item {}: a choice of {} tokens does not fit into a context of {}",
                       task.name, i, text.tokens.size() - text.begin, longest_tokens);
        }
        text.tokens.erase(text.tokens.begin(), text.tokens.begin() + static_cast<int64_t>(dropped));
        text.begin -= dropped;
      }
      question.push_back(std::move(text));
    }
    questions.push_back(std::move(question));
  }
  return questions;
}

Result<TaskResult> measure_task(ChoiceScorer& scorer, const Task& task,
                                const std::vector<Question>& questions,
                                const std::function<void(int64_t)>& on_items) {
  const auto start = std::chrono::steady_clock::now();
  TaskResult result;
  result.n = static_cast<int64_t>(questions.size());
  for (size_t first = 0; first < questions.size();) {
    const auto rest = std::span(questions).subspan(first);
    const auto group = rest.first(scorer.questions_at_once(rest));
    for (std::vector<double>& scores : ATOM_TRY(scorer.score(group))) {
      result.log_likelihoods.push_back(std::move(scores));
    }
    first += group.size();
    if (on_items) on_items(static_cast<int64_t>(group.size()));
  }
  int64_t right = 0;
  int64_t right_normalized = 0;
  bool normalized = true;
  for (size_t i = 0; i < questions.size(); ++i) {
    std::vector<double> scores = result.log_likelihoods[i];
    for (const double score : scores) {
      if (!std::isfinite(score)) {
        return error(ErrorCode::kCorrupt,
                     "{}: a likelihood of item {} is not finite: broken weights?", task.name, i);
      }
    }
    right += is_right(scores, task.items[i].gold);
    for (size_t c = 0; c < scores.size(); ++c) {
      const int64_t characters = task.items[i].choices[c].characters;
      normalized &= characters > 0;
      scores[c] /= static_cast<double>(std::max<int64_t>(1, characters));
    }
    right_normalized += is_right(scores, task.items[i].gold);
  }
  const auto n = static_cast<double>(result.n);
  result.acc = static_cast<double>(right) / n;
  result.acc_stderr = standard_error(result.acc, result.n);
  if (normalized) {
    result.acc_norm = static_cast<double>(right_normalized) / n;
    result.acc_norm_stderr = standard_error(*result.acc_norm, result.n);
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace atom
