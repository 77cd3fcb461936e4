#include "eval/choice_scorer.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/interrupt.h"
#include "model/batching.h"

namespace atom {
namespace {

constexpr int64_t kCachePages = 1024;  // more where one question needs more

size_t pages_of(size_t tokens) {
  return (tokens + static_cast<size_t>(kPageTokens) - 1) / static_cast<size_t>(kPageTokens);
}

// Tokens that all choices begin with and that fill whole pages. At least one token of each choice
// is left, so that there is a row to score its first one from.
size_t shared_tokens(const Question& question) {
  const std::vector<int32_t>& first = question[0].tokens;
  size_t common = first.size();
  for (const ScoredText& choice : question) {
    const auto end = first.begin() + static_cast<int64_t>(common);
    common = static_cast<size_t>(
        std::mismatch(first.begin(), end, choice.tokens.begin(), choice.tokens.end()).first -
        first.begin());
    common = std::min(common, choice.begin - 1);
  }
  return common / static_cast<size_t>(kPageTokens) * static_cast<size_t>(kPageTokens);
}

size_t pages_needed(const Question& question) {
  const size_t shared = pages_of(shared_tokens(question));
  size_t pages = shared;
  for (const ScoredText& choice : question) pages += pages_of(choice.tokens.size()) - shared;
  return pages;
}

}  // namespace

DecoderLimits choice_scorer_limits(int64_t prefix_tokens, int64_t longest_tokens) {
  return {.max_tokens = kEvalBatchTokens,
          .max_logit_rows = kEvalLogitRows,
          .positions = prefix_tokens + longest_tokens};
}

Result<std::unique_ptr<ChoiceScorer>> ChoiceScorer::create(Decoder& decoder, int64_t longest_tokens,
                                                           int64_t most_choices) {
  const auto pages = static_cast<int64_t>(pages_of(static_cast<size_t>(longest_tokens)));
  auto cache = ATOM_TRY(decoder.make_cache(std::max(kCachePages, pages * most_choices)));
  return std::unique_ptr<ChoiceScorer>(
      new ChoiceScorer(decoder, ATOM_TRY(RowLosses::create(decoder)), std::move(cache)));
}

ChoiceScorer::ChoiceScorer(Decoder& decoder, RowLosses row_losses, std::unique_ptr<KvCache> cache)
    : decoder_(decoder), row_losses_(std::move(row_losses)), cache_(std::move(cache)) {}

size_t ChoiceScorer::questions_at_once(std::span<const Question> questions) const {
  const auto room = static_cast<size_t>(cache_->shape().pages);
  size_t pages = 0;
  size_t count = 0;
  while (count < questions.size()) {
    pages += pages_needed(questions[count]);
    if (pages > room) break;
    ++count;
  }
  return std::max<size_t>(count, 1);
}

Result<std::vector<std::vector<double>>> ChoiceScorer::score(std::span<const Question> questions) {
  std::vector<std::vector<double>> result(questions.size());
  std::vector<Run> shared_runs;
  std::vector<Run> runs;
  int32_t next_page = 0;
  const auto take_pages = [&](std::vector<int32_t>& pages, size_t count) {
    for (; pages.size() < count; ++next_page) pages.push_back(next_page);
  };
  for (size_t q = 0; q < questions.size(); ++q) {
    const Question& question = questions[q];
    result[q].assign(question.size(), 0.0);
    const size_t shared = shared_tokens(question);
    std::vector<int32_t> shared_pages;
    take_pages(shared_pages, pages_of(shared));
    if (shared > 0) {
      shared_runs.push_back(
          {std::span(question[0].tokens).first(shared), 0, shared_pages, nullptr, nullptr});
    }
    for (size_t c = 0; c < question.size(); ++c) {
      const ScoredText& text = question[c];
      ATOM_CHECK(text.begin >= 1 && text.begin < text.tokens.size(), "tokens that count");
      Run run{std::span(text.tokens).first(text.tokens.size() - 1), shared, shared_pages, &text,
              &result[q][c]};
      take_pages(run.pages, pages_of(text.tokens.size()));
      runs.push_back(std::move(run));
    }
  }
  ATOM_CHECK(next_page <= cache_->shape().pages, "as many questions as fit");
  ATOM_TRY(finish(shared_runs));
  ATOM_TRY(finish(runs));
  return result;
}

// Runs all tokens in batches as full as can be: a text that does not fit into one goes on in the
// next.
Status ChoiceScorer::finish(std::vector<Run>& runs) {
  size_t done = 0;
  while (done < runs.size()) {
    ATOM_TRY(check_interrupted());
    batch_.clear();
    rows_.clear();
    targets_.clear();
    sums_.clear();
    const auto room = [&] {
      return static_cast<size_t>(decoder_.limits().max_tokens - batch_.size());
    };
    for (size_t i = done; i < runs.size() && room() > 0; ++i) {
      Run& run = runs[i];
      const size_t count = std::min(run.tokens.size() - run.past, room());
      const auto first_row = static_cast<size_t>(batch_.size());
      add_sequence(batch_, run.tokens.subspan(run.past, count), static_cast<int64_t>(run.past),
                   run.pages, decoder_.weights().prefix_tokens);
      if (run.text != nullptr) {
        // The row of token t - 1 predicts token t.
        for (size_t t = std::max(run.text->begin, run.past + 1); t <= run.past + count; ++t) {
          rows_.push_back(static_cast<int32_t>(first_row + t - 1 - run.past));
          targets_.push_back(run.text->tokens[t]);
          sums_.push_back(run.log_likelihood);
        }
      }
      run.past += count;
      if (run.past == run.tokens.size()) done = i + 1;
    }
    ATOM_TRY(decoder_.run(batch_, *cache_));
    add_losses();
  }
  return {};
}

void ChoiceScorer::add_losses() {
  losses_.resize(rows_.size());
  row_losses_.compute(rows_, targets_, losses_);
  for (size_t i = 0; i < losses_.size(); ++i) *sums_[i] -= losses_[i];
}

}  // namespace atom
