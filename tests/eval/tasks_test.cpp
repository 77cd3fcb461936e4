#include "eval/tasks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "app/text_side.h"
#include "base/parallel.h"
#include "model/model_testing.h"

namespace atom {
namespace {

using testing::load_model;
using testing::Model;
using testing::model_data;
using testing::must;

std::filesystem::path eval_data(const char* name) {
  return std::filesystem::path(ATOM_TEST_DATA) / "eval" / name;
}

struct GoldenQuestions {
  std::vector<Question> questions;
  std::vector<std::vector<double>> log_likelihoods;
};

GoldenQuestions read_golden_questions(const char* model) {
  const Json json = must(read_json_file(eval_data("golden.json")));
  const JsonView rows = must(JsonView(json, "golden.json").at(model));
  GoldenQuestions golden;
  for (size_t q = 0; q < rows.size(); ++q) {
    const JsonView choices = must(rows.at(q));
    golden.questions.emplace_back();
    golden.log_likelihoods.emplace_back();
    for (size_t c = 0; c < choices.size(); ++c) {
      const JsonView choice = must(choices.at(c));
      golden.questions.back().push_back(
          {testing::json_array<int32_t>(must(choice.at("tokens"))),
           static_cast<size_t>(must(choice.get_int("begin", 1, 1000)))});
      golden.log_likelihoods.back().push_back(must(choice.get_number("log_likelihood")));
    }
  }
  return golden;
}

class ChoiceScorerTest : public ::testing::TestWithParam<const char*> {
 protected:
  // Tiny operators: waking threads for them would take most of the time.
  void SetUp() override { set_thread_count(1); }
  void TearDown() override { set_thread_count(0); }
};
INSTANTIATE_TEST_SUITE_P(Backends, ChoiceScorerTest, ::testing::ValuesIn(testing::kBackends),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(ChoiceScorerTest, LogLikelihoodsAreThoseOfTransformers) {
  const GoldenQuestions golden = read_golden_questions("llama");
  ASSERT_EQ(golden.questions.size(), 4u);
  // Everything in one batch; shared beginnings and texts cut into pieces.
  for (const int64_t max_tokens : {1024, 7, 33}) {
    const Model model = load_model(model_data("llama"), GetParam(),
                                   {.max_tokens = max_tokens, .max_logit_rows = 5});
    const auto scorer = must(ChoiceScorer::create(*model.decoder, 128, 3));
    EXPECT_EQ(scorer->questions_at_once(golden.questions), golden.questions.size());
    const auto found = must(scorer->score(golden.questions));
    for (size_t q = 0; q < golden.questions.size(); ++q) {
      ASSERT_EQ(found[q].size(), golden.questions[q].size());
      for (size_t c = 0; c < found[q].size(); ++c) {
        EXPECT_NEAR(found[q][c], golden.log_likelihoods[q][c], 2e-4)
            << "question " << q << ", choice " << c << ", " << max_tokens << " tokens at once";
      }
    }
  }
}

TEST_P(ChoiceScorerTest, QuestionsWaitForRoom) {
  const Model model = load_model(model_data("llama"), GetParam(), {.max_tokens = 64});
  const auto scorer = must(ChoiceScorer::create(*model.decoder, 128, 200));
  Question question(200);
  for (size_t c = 0; c < question.size(); ++c) {
    question[c] = {std::vector<int32_t>(128, static_cast<int32_t>(c % 100)), 1};
  }
  const std::vector<Question> questions(3, question);
  EXPECT_EQ(scorer->questions_at_once(questions), 1u);
}

TEST(Tasks, FiguresAreThoseOfLmEval) {
  // Log-likelihoods that are known: a uniform model would not tell, so the tiny one's are used.
  const GoldenQuestions golden = read_golden_questions("llama");
  Task task{"tiny", {}};
  const auto best = [](const std::vector<double>& scores) {
    return static_cast<size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
  };
  for (const std::vector<double>& scores : golden.log_likelihoods) {
    TaskItem item;
    for (size_t c = 0; c < scores.size(); ++c) item.choices.push_back({"", "", 1});
    item.gold = best(scores);
    task.items.push_back(std::move(item));
  }
  // One wrong answer in four, and one that only the length makes right.
  task.items[0].gold = (task.items[0].gold + 1) % 3;
  task.items[0].choices[task.items[0].gold].characters = 1'000'000;
  const Model model =
      load_model(model_data("llama"), "cpu", {.max_tokens = 64, .max_logit_rows = 16});
  const auto scorer = must(ChoiceScorer::create(*model.decoder, 128, 3));
  int64_t seen = 0;
  const TaskResult result =
      must(measure_task(*scorer, task, golden.questions, [&](int64_t count) { seen += count; }));
  EXPECT_EQ(seen, 4);
  EXPECT_EQ(result.n, 4);
  EXPECT_DOUBLE_EQ(result.acc, 0.75);
  EXPECT_DOUBLE_EQ(result.acc_stderr, std::sqrt(0.75 * 0.25 / 3));
  EXPECT_DOUBLE_EQ(result.acc_norm.value(), 1.0);
  EXPECT_DOUBLE_EQ(result.acc_norm_stderr.value(), 0.0);
  task.items[1].choices[0].characters = 0;
  EXPECT_FALSE(must(measure_task(*scorer, task, golden.questions)).acc_norm.has_value());
}

TEST(Tasks, ReadsBothKindsOfItems) {
  const Task task = must(read_task(eval_data("questions.jsonl"), "questions", 0));
  ASSERT_EQ(task.items.size(), 6u);
  EXPECT_EQ(task.items[0].choices[1].context,
            "Question: How do you keep bread fresh for a few days?\nAnswer:");
  EXPECT_EQ(task.items[0].choices[1].continuation, " Put it into a bath of cold water.");
  EXPECT_EQ(task.items[0].choices[1].characters, 33);
  EXPECT_TRUE(task.items[2].choices[0].context.ends_with("into the danube?\nAnswer:"));
  EXPECT_TRUE(task.items[3].choices[0].context.ends_with(" She"));
  EXPECT_EQ(task.items[3].choices[3].characters, 42);  // one of them takes three bytes
  EXPECT_EQ(task.items[4].choices[1].continuation, " was too large.");
  EXPECT_EQ(task.items[4].choices[1].characters, 0);
  EXPECT_EQ(must(read_task(eval_data("questions.jsonl"), "questions", 2)).items.size(), 2u);
}

TEST(Tasks, NamesTheLineThatIsWrong) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("atom_tasks_test_" + std::to_string(::getpid()) + ".jsonl");
  const auto message = [&](const std::string& text) {
    std::ofstream(path) << text;
    return read_task(path, "x", 0).status().message();
  };
  const std::string good = R"({"query": "a", "choices": ["b", "c"], "gold": 1})";
  EXPECT_NE(message(good + "\n\n{").find("line 3: not valid JSON"), std::string::npos);
  EXPECT_NE(message(R"({"query": "a", "choices": ["b", "c"], "gold": 2})").find("gold"),
            std::string::npos);
  EXPECT_NE(message(R"({"query": "a", "choices": ["b"], "gold": 0})").find("choices"),
            std::string::npos);
  EXPECT_NE(message(R"({"query": "a", "choices": ["b", 3], "gold": 0})").find("choices[1]"),
            std::string::npos);
  EXPECT_NE(message(R"({"choices": ["b", "c"], "gold": 0})").find("'query' is missing"),
            std::string::npos);
  EXPECT_NE(message(R"({"context_options": ["b", "c"], "gold": 0})").find("'continuation'"),
            std::string::npos);
  EXPECT_NE(message("\n").find("no items"), std::string::npos);
  std::filesystem::remove(path);
}

// Tokens at the border between context and continuation, and what the model makes of them.
TEST(SmolLm2Tasks, ItemsAreThoseOfTransformers) {
  const auto path = testing::smollm2_path();
  if (path.empty()) {
    std::fprintf(stderr, "%s\n", testing::kNoSmolLm2);
    GTEST_SKIP() << testing::kNoSmolLm2;
  }
  const GoldenQuestions golden = read_golden_questions("smollm2");
  const std::unique_ptr<ModelSource> source = must(open_model_source(path));
  const Tokenizer tokenizer = must(make_tokenizer(must(source->text_assets()), source->origin()));
  const Task task = must(read_task(eval_data("questions.jsonl"), "questions", 0));
  const std::vector<Question> questions = must(encode_task(task, tokenizer, 2048));
  ASSERT_EQ(questions.size(), golden.questions.size());
  for (size_t q = 0; q < questions.size(); ++q) {
    ASSERT_EQ(questions[q].size(), golden.questions[q].size());
    for (size_t c = 0; c < questions[q].size(); ++c) {
      EXPECT_EQ(questions[q][c].tokens, golden.questions[q][c].tokens) << q << ", " << c;
      EXPECT_EQ(questions[q][c].begin, golden.questions[q][c].begin) << q << ", " << c;
    }
  }
  const Model model = load_model(path, "cpu", choice_scorer_limits(0, 128));
  const auto scorer = must(ChoiceScorer::create(*model.decoder, 128, 4));
  const TaskResult result = must(measure_task(*scorer, task, questions));
  for (size_t q = 0; q < questions.size(); ++q) {
    for (size_t c = 0; c < questions[q].size(); ++c) {
      EXPECT_NEAR(result.log_likelihoods[q][c], golden.log_likelihoods[q][c], 2e-3)
          << q << ", " << c;
    }
  }
  // What does not fit loses its beginning.
  const std::vector<Question> cut = must(encode_task(task, tokenizer, 30));
  EXPECT_EQ(cut[2][0].tokens.size(), 30u);
  EXPECT_EQ(cut[2][0].begin, 29u);
  EXPECT_FALSE(encode_task(task, tokenizer, 9).ok());
}

}  // namespace
}  // namespace atom
