// How much work one compilation may cost: hostile schemas and patterns end in an error early.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace atom::grammar {

class WorkBudget {
 public:
  explicit WorkBudget(int64_t units) : left_(units) {}

  // Takes units off; place names what is being compiled.
  Status spend(int64_t units, std::string_view place) {
    left_ -= units;
    if (left_ >= 0) return {};
    return error(ErrorCode::kInvalidArgument, "{}: too complex to compile", place);
  }

 private:
  int64_t left_;
};

}  // namespace atom::grammar
