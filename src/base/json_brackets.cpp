#include "base/json_brackets.h"

namespace atom {

bool JsonBrackets::next() {
  bool in_string = false;
  while (at_ < text_.size()) {
    const char c = text_[at_++];
    if (c == '"') {
      in_string = !in_string;
    } else if (in_string) {
      if (c == '\\') ++at_;
    } else if (c == '[' || c == '{') {
      ++depth_;
      return true;
    } else if (c == ']' || c == '}') {
      --depth_;
      return true;
    }
  }
  return false;
}

}  // namespace atom
