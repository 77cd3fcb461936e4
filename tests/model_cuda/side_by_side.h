// One model on two backends: both are fed the same tokens, and their logits compared row by row.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "io/checkpoint.h"
#include "model/checkpoint_model.h"
#include "model/model_testing.h"

namespace atom::testing {

// What is done with a checkpoint here needs no more.
inline Model open_checkpoint(const Checkpoint& checkpoint, std::unique_ptr<Backend> backend) {
  Model model;
  model.backend = std::move(backend);
  model.weights = std::make_shared<const DecoderWeights>(
      must(load_checkpoint_model(*model.backend, checkpoint)));
  model.decoder =
      must(Decoder::create(*model.backend, model.weights,
                           {.max_tokens = 512, .max_logit_rows = 512, .positions = 1024}));
  return model;
}

// Sequences side by side on one decoder: first the prompt of each, then a token of each at a time.
class Sequences {
 public:
  Sequences(Decoder& decoder, const std::vector<std::vector<int32_t>>& prompts, int64_t steps)
      : decoder_(decoder), prompts_(prompts), pages_(prompts.size()) {
    int32_t next_page = 0;
    for (size_t i = 0; i < prompts.size(); ++i) {
      const auto tokens = static_cast<int64_t>(prompts[i].size()) + steps;
      pages_[i].resize(static_cast<size_t>((tokens + kPageTokens - 1) / kPageTokens));
      for (int32_t& page : pages_[i]) page = next_page++;
    }
    cache_ = must(decoder.make_cache(next_page));
    logits_ = must(
        decoder.backend().make_tensor(decoder.limits().max_logit_rows, decoder.config().vocab));
  }

  // Logits behind the last token of prompt i, [V]; valid until the next call.
  std::span<const float> prompt(size_t i) {
    Batch batch;
    add_sequence(batch, prompts_[i], 0, pages_[i], decoder_.weights().prefix_tokens);
    batch.logit_rows = {static_cast<int32_t>(batch.size() - 1)};
    return forward(batch);
  }

  // Logits behind one more token of each sequence, [sequences, V]; valid until the next call.
  std::span<const float> step(std::span<const int32_t> tokens) {
    Batch batch;
    for (size_t i = 0; i < prompts_.size(); ++i) {
      add_sequence(batch, tokens.subspan(i, 1), static_cast<int64_t>(prompts_[i].size()) + steps_,
                   pages_[i], decoder_.weights().prefix_tokens);
      batch.logit_rows.push_back(static_cast<int32_t>(i));
    }
    ++steps_;
    return forward(batch);
  }

 private:
  std::span<const float> forward(const Batch& batch) {
    const Status status = decoder_.forward(batch, *cache_, *logits_);
    EXPECT_TRUE(status.ok()) << status.message();
    const auto rows = static_cast<int64_t>(batch.logit_rows.size());
    host_.resize(static_cast<size_t>(rows * decoder_.config().vocab));
    decoder_.backend().read(*logits_, rows, host_);
    return host_;
  }

  Decoder& decoder_;
  std::vector<std::vector<int32_t>> prompts_;
  std::vector<std::vector<int32_t>> pages_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Tensor> logits_;
  std::vector<float> host_;
  int64_t steps_ = 0;
};

// How far logits are from those expected. A shift of a whole row, which no probability depends on,
// does not count.
struct LogitError {
  double error = 0;   // squares of the differences
  double signal = 0;  // squares of the logits expected, about their mean
  int64_t count = 0;

  double rms() const { return std::sqrt(error / static_cast<double>(count)); }
  double normalised() const { return error / signal; }
  void add(const LogitError& other) {
    error += other.error;
    signal += other.signal;
    count += other.count;
  }
};

inline LogitError row_error(std::span<const float> found, std::span<const float> expected) {
  double found_sum = 0, expected_sum = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    found_sum += static_cast<double>(found[i]);
    expected_sum += static_cast<double>(expected[i]);
  }
  const auto count = static_cast<double>(expected.size());
  LogitError result{.count = static_cast<int64_t>(expected.size())};
  for (size_t i = 0; i < expected.size(); ++i) {
    const double want = static_cast<double>(expected[i]) - expected_sum / count;
    const double miss = static_cast<double>(found[i]) - found_sum / count - want;
    result.error += miss * miss;
    result.signal += want * want;
  }
  return result;
}

inline int32_t best_token(std::span<const float> row) {
  return static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

// How far the best logit is above the second.
inline double best_gap(std::span<const float> row) {
  float best = -INFINITY, second = -INFINITY;
  for (const float x : row) {
    second = std::max(second, std::min(best, x));
    best = std::max(best, x);
  }
  return static_cast<double>(best) - static_cast<double>(second);
}

// A position of a text that both models are fed.
struct GreedyPosition {
  double gap;    // between the first model's best two logits
  double rms;    // difference of the two models' logits
  bool differs;  // the second model prefers another token
};

// How two models choose tokens one after another, the most likely each time.
struct GreedyComparison {
  LogitError difference;  // of all positions
  std::vector<GreedyPosition> positions;
  // Of each sequence: where the second model first prefers another token, and where the text that
  // it writes by itself parts from the first one's.
  std::vector<int64_t> first_other, parted;
};

// The first model writes `steps` tokens behind each prompt; the second is fed the same tokens, and
// writes a text of its own beside.
inline GreedyComparison compare_greedy(const Model& first, const Model& second,
                                       const std::vector<std::vector<int32_t>>& prompts,
                                       int64_t steps) {
  const size_t count = prompts.size();
  const auto vocab = static_cast<size_t>(first.weights->config.vocab);
  Sequences writes(*first.decoder, prompts, steps), follows(*second.decoder, prompts, steps),
      alone(*second.decoder, prompts, steps);
  GreedyComparison result;
  result.first_other.assign(count, steps);
  result.parted.assign(count, steps);
  std::vector<int32_t> text(count), own_text(count);
  const auto take = [&](size_t i, int64_t step, std::span<const float> want,
                        std::span<const float> got, std::span<const float> own) {
    const LogitError error = row_error(got, want);
    result.difference.add(error);
    text[i] = best_token(want);
    own_text[i] = best_token(own);
    const bool differs = best_token(got) != text[i];
    result.positions.push_back({.gap = best_gap(want), .rms = error.rms(), .differs = differs});
    if (differs) result.first_other[i] = std::min(result.first_other[i], step);
    if (own_text[i] != text[i]) result.parted[i] = std::min(result.parted[i], step);
  };
  for (size_t i = 0; i < count; ++i) {
    const std::span<const float> want = writes.prompt(i), got = follows.prompt(i);
    take(i, 0, want, got, alone.prompt(i));
  }
  for (int64_t step = 1; step < steps; ++step) {
    const std::span<const float> want = writes.step(text), got = follows.step(text),
                                 own = alone.step(own_text);
    for (size_t i = 0; i < count; ++i) {
      const auto row = [&](std::span<const float> all) { return all.subspan(i * vocab, vocab); };
      take(i, step, row(want), row(got), row(own));
    }
  }
  return result;
}

// Two best logits nearer than so many times the RMS difference of the two models' logits, over all
// positions or at this one, are a near-tie. Were the differences of two logits independent and
// Gaussian, a wider gap would turn once in 5000 times: 5 / sqrt(2) standard deviations, to one
// side. Positions differ in how far codes that rounded differently have carried the two models
// apart.
inline constexpr double kNearTie = 5;

// Fails unless the second model prefers another token at near-ties alone, and at no more than so
// many of all positions; and unless it leaves the first one's text just there.
inline void expect_equal_but_for_near_ties(const GreedyComparison& c, double most_others) {
  int64_t near_ties = 0, others = 0;
  GreedyPosition widest = {};  // of those at which another token is preferred
  for (const GreedyPosition& p : c.positions) {
    const double tie = kNearTie * std::max(c.difference.rms(), p.rms);
    if (p.gap < tie) ++near_ties;
    if (!p.differs) continue;
    ++others;
    if (p.gap > widest.gap) widest = p;
    EXPECT_LT(p.gap, tie) << "logits of the position differ by " << p.rms;
  }
  std::printf("logits differ by %.2g (RMS; squared error %.2g); %td of %zu are near-ties\n",
              c.difference.rms(), c.difference.normalised(), near_ties, c.positions.size());
  std::printf("another token is preferred at %td, at a gap of %.2g where logits differ by %.2g\n",
              others, widest.gap, widest.rms);
  EXPECT_LE(static_cast<double>(others), most_others * static_cast<double>(c.positions.size()));
  EXPECT_EQ(c.parted, c.first_other);
}

}  // namespace atom::testing
