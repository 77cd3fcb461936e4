// What constrained output (a JSON schema, a regular expression, a choice) asks of its tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/status.h"

namespace atom {

// The state of one output under a constraint. Used by one thread at a time, not always the same.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;

  // Sets bit t % 64 of mask[t / 64] for every token t that may come next and clears the others;
  // mask [ceil(V / 64)] comes with arbitrary content. Where the output is complete, this allows the
  // model's ends of generation. A mask without any bit ends the output with an error.
  virtual void allowed(std::span<uint64_t> mask) = 0;

  // Takes in the token that was chosen; it was allowed. An error ends the output with it.
  virtual Status accept(int32_t token) = 0;

  // A copy in the same state: every output of a request starts from a clone of the request's.
  virtual std::unique_ptr<TokenConstraint> clone() const = 0;
};

}  // namespace atom
