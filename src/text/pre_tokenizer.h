// Splits normalized text into the pieces inside which BPE may merge.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/regex.h"
#include "text/scanners.h"
#include "text/tokenizer_spec.h"

namespace atom {

// Receives the pieces in order. A piece stays valid as long as the text that was split and the
// PreTokenizer::Run that split it.
class PieceSink {
 public:
  virtual ~PieceSink() = default;
  virtual void piece(std::string_view text) = 0;
};

class PreTokenizer {
 public:
  // place names the file, for messages.
  static Result<PreTokenizer> create(const std::vector<PreTokenizerStep>& steps,
                                     std::string_view place);

  // One thread's work on one text: matchers and the strings that pieces point into.
  class Run {
   public:
    Run(const PreTokenizer& pre_tokenizer, PieceSink& sink);
    // Splits text; at_start says whether it begins where the whole input does. Fails only where a
    // pattern exceeds its limits on this text.
    Status split(std::string_view text, bool at_start);

   private:
    struct Part {
      size_t begin;
      size_t end;
      bool is_match;
    };
    Status apply(size_t index, std::string_view text, bool at_start);
    Status apply_split(size_t index, std::string_view text, bool at_start);
    Status apply_metaspace(size_t index, std::string_view text, bool at_start);
    Status find_parts(size_t index, std::string_view text, std::vector<Part>& parts);
    Status next(size_t index, std::string_view text, bool at_start);

    const PreTokenizer& pre_tokenizer_;
    PieceSink& sink_;
    std::vector<std::optional<Regex::Matcher>> matchers_;  // by step
    std::deque<std::string> strings_;
  };

 private:
  struct Step {
    PreTokenizerStep spec;
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false;
    std::optional<ScannerKind> scanner;
    std::optional<Regex> regex;
  };
  std::vector<Step> steps_;
};

}  // namespace atom
