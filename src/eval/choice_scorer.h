// Log-likelihoods of the choices of multiple-choice questions.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "eval/row_losses.h"
#include "model/decoder.h"

namespace atom {

// A text whose end is scored.
struct ScoredText {
  std::vector<int32_t> tokens;
  size_t begin = 0;  // the first token that counts, at least 1
};
// The choices of one question.
using Question = std::vector<ScoredText>;

// Runs many questions side by side. What the choices of a question have in common at their
// beginning is computed once, as far as it fills pages of the KV cache, and read by all of them.
class ChoiceScorer {
 public:
  // The decoder must outlive it. longest_tokens: of a text, at most the decoder's positions;
  // most_choices: of a question.
  static Result<std::unique_ptr<ChoiceScorer>> create(Decoder& decoder, int64_t longest_tokens,
                                                      int64_t most_choices);

  // How many of these questions fit at once, at least 1.
  size_t questions_at_once(std::span<const Question> questions) const;
  // log_likelihoods[q][c]: of the tokens of choice c of question q that count, in nats.
  // REQUIRES: no more questions than questions_at_once().
  Result<std::vector<std::vector<double>>> score(std::span<const Question> questions);

 private:
  // Tokens of a text that still have to run, in pages of their own behind shared ones.
  struct Run {
    std::span<const int32_t> tokens;  // of the text, without its last
    size_t past = 0;                  // that have run
    std::vector<int32_t> pages;
    const ScoredText* text = nullptr;  // whose losses are wanted, or null
    double* log_likelihood = nullptr;
  };
  ChoiceScorer(Decoder& decoder, RowLosses row_losses, std::unique_ptr<KvCache> cache);
  Status finish(std::vector<Run>& runs);
  void add_losses();

  Decoder& decoder_;
  RowLosses row_losses_;
  std::unique_ptr<KvCache> cache_;
  Batch batch_;
  // Of the batch: rows with a target, and whose sum its loss belongs to.
  std::vector<int32_t> rows_;
  std::vector<int32_t> targets_;
  std::vector<double*> sums_;
  std::vector<double> losses_;
};

// What a decoder for it should be made for.
DecoderLimits choice_scorer_limits(int64_t prefix_tokens, int64_t longest_tokens);

}  // namespace atom
