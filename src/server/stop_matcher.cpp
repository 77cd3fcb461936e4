#include "server/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace atom {

size_t begun_at_end(std::string_view text, std::string_view word) {
  for (size_t length = std::min(text.size(), word.size() - 1); length > 0; --length) {
    if (text.substr(text.size() - length) == word.substr(0, length)) return length;
  }
  return 0;
}

std::string StopMatcher::push(std::string_view piece) {
  if (stopped_) return {};
  if (stop_.empty()) return std::string(piece);
  std::string text = std::move(held_);
  held_.clear();
  text += piece;
  size_t cut = std::string::npos;
  for (const std::string& word : stop_) cut = std::min(cut, text.find(word));
  if (cut != std::string::npos) {
    stopped_ = true;
    text.resize(cut);
    return text;
  }
  size_t hold = 0;
  for (const std::string& word : stop_) hold = std::max(hold, begun_at_end(text, word));
  held_ = text.substr(text.size() - hold);
  text.resize(text.size() - hold);
  return text;
}

std::string StopMatcher::finish() { return std::exchange(held_, {}); }

}  // namespace atom
