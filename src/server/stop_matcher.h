// Finding stop strings in text that comes in pieces.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace atom {

// Feeds on pieces and gives out what no stop string can begin in any more, so that neither a stop
// string nor a part of one is ever shown.
class StopMatcher {
 public:
  // No string may be empty.
  explicit StopMatcher(std::vector<std::string> stop) : stop_(std::move(stop)) {}

  // The text that became certain. Once a stop string is complete, stopped() holds and the text ends
  // right before the earliest one; further pieces yield nothing.
  std::string push(std::string_view piece);
  // The rest, where the text ends without a stop string.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stop_;
  std::string held_;  // the longest end of the text that begins a stop string
  bool stopped_ = false;
};

// The length of the longest proper beginning of `word` that `text` ends with.
size_t begun_at_end(std::string_view text, std::string_view word);

}  // namespace atom
