// One output as text: what its tokens spell, up to a stop string, with the place of each token.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/request.h"
#include "server/stop_matcher.h"
#include "server/token_text.h"
#include "text/detokenizer.h"

namespace atom {

struct TextPiece {
  std::string text = {};  // what became certain
  std::vector<PlacedToken> logprobs =
      {};  // of the tokens since the last piece, if any were asked for
};

class ChoiceText {
 public:
  // keep_logprobs: collect the tokens' log-probabilities. offset: characters before the output's
  // first in what text_offset counts. The tokenizer must outlive it.
  ChoiceText(const Tokenizer& tokenizer, bool skip_special, std::vector<std::string> stop,
             bool keep_logprobs, int64_t offset);

  // Takes in a token. False once a stop string is complete.
  bool push(const ScoredToken& token);
  // The tokens are at an end: what was held back becomes certain. stop: the token that ended them,
  // where its log-probability is to stand behind theirs; it has no text.
  void finish(const ScoredToken& stop = {});
  // What has come since the last call. Tokens that spell held-back text wait with it.
  TextPiece take();
  bool has_news() const { return !ready_.text.empty(); }

  int64_t tokens() const { return tokens_; }
  bool stopped() const { return stop_.stopped(); }

 private:
  void add(std::string text);

  IncrementalDetokenizer detokenizer_;
  StopMatcher stop_;
  bool keep_logprobs_;
  int64_t decoded_;  // characters of the tokens so far, stop string included
  int64_t certain_;  // of them, given out
  int64_t tokens_ = 0;
  TextPiece ready_;
  std::vector<PlacedToken> held_;  // tokens of text that is not certain yet
};

// Unicode code points of valid UTF-8.
int64_t count_characters(std::string_view text);

}  // namespace atom
