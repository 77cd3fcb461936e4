// The nesting of JSON text without parsing it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace atom {

// Goes through text from bracket to bracket, those of arrays and objects and not those in strings.
// The text need not be JSON: nothing else of it is looked at.
class JsonBrackets {
 public:
  explicit JsonBrackets(std::string_view text) : text_(text) {}
  // Goes behind the next bracket; false where there is none.
  bool next();
  int64_t depth() const { return depth_; }  // brackets that are open here
  size_t position() const { return at_; }   // just behind the last bracket

 private:
  std::string_view text_;
  size_t at_ = 0;
  int64_t depth_ = 0;
};

}  // namespace atom
