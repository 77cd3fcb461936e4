// Rewrites text before it is split: Unicode normal forms, replacements, prefixes. Bytes that are no
// UTF-8 pass through unchanged.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/regex.h"
#include "text/tokenizer_spec.h"

namespace atom {

class Normalizer {
 public:
  // place names the file, for messages.
  static Result<Normalizer> create(const std::vector<NormalizerStep>& steps,
                                   std::string_view place);

  bool empty() const { return steps_.empty(); }
  // Fails only where a pattern exceeds its limits on this text, or the text grows beyond reason.
  Result<std::string> apply(std::string_view text) const;

 private:
  struct Step {
    NormalizerStep spec;
    std::optional<Regex> regex;
  };
  std::vector<Step> steps_;
  std::string place_;
};

// A copy of text in which every byte that is no UTF-8 is U+001A, for a matcher that needs UTF-8;
// offsets stay the same. Returns text itself, and leaves storage alone, where nothing is wrong.
std::string_view with_valid_utf8(std::string_view text, std::string& storage);

}  // namespace atom
