// Prompts of a wanted length for a server whose tokenizer is not known.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace atom {

// How many tokens a server makes of random words: overhead + words * tokens_per_word. The overhead
// is what it puts around a prompt (BOS, chat template).
struct TokenFit {
  double overhead = 0;
  double tokens_per_word = 1.3;  // English text under the usual vocabularies

  // The line through two measurements; none where they contradict each other.
  static std::optional<TokenFit> through(int64_t words_a, double tokens_a, int64_t words_b,
                                         double tokens_b);
  // The words that make about this many tokens, at least 1.
  int64_t words_for(int64_t tokens) const;
};

// Prompts of words drawn at random. A prompt depends on the seed and its index alone, so that two
// servers get the same ones in whatever order they answer.
class PromptSource {
 public:
  // The words of a text file of at most 64 MiB, as often as they stand there; without a path,
  // a list of common English words. Fails where the file has fewer than two words.
  static Result<PromptSource> open(const std::optional<std::filesystem::path>& path, uint64_t seed);

  // words: the length; shared_words: how many words at the beginning are those of every prompt.
  std::string prompt(int64_t index, int64_t words, int64_t shared_words = 0) const;

 private:
  PromptSource() = default;
  void append_words(std::string& text, uint64_t seed, int64_t count) const;

  std::unique_ptr<const std::string> text_;  // on the heap, so that words_ survive a move
  std::vector<std::string_view> words_;      // of *text_, or static
  uint64_t seed_ = 0;
};

}  // namespace atom
