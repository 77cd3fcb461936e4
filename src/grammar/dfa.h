// Deterministic automata over bytes: the regular parts of a grammar.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "grammar/regex_syntax.h"
#include "grammar/work_budget.h"

namespace atom::grammar {

struct ByteEdge {
  uint8_t first = 0;
  uint8_t last = 0;
  int32_t target = 0;
};

struct DfaState {
  bool accepting = false;
  std::vector<ByteEdge> edges;  // ascending, disjoint
};

struct Dfa {
  std::vector<DfaState> states;  // the first is where it starts; may hold states that lead nowhere

  int32_t next(int32_t state, uint8_t byte) const;  // -1: none
  bool accepts(std::string_view text) const;
};

// How a character is spelled in bytes.
enum class CharSpelling : uint8_t {
  kUtf8,
  kJson,  // inside a JSON string, in the one spelling that JSON writers choose: UTF-8, \" \\ \b \f
          // \n \r \t, and \u00xx for the other control characters
};

// The automaton of a tree without anchors. place stands in messages.
Result<Dfa> compile_regex(const RegexNode& root, CharSpelling spelling, WorkBudget& budget,
                          std::string_view place);
// Parses and compiles a pattern for whole texts (search false) or for any part of them.
Result<Dfa> compile_pattern(std::string_view pattern, bool search, CharSpelling spelling,
                            WorkBudget& budget, std::string_view place);

// The automaton of a list of texts.
Result<Dfa> compile_texts(std::span<const std::string> texts, WorkBudget& budget,
                          std::string_view place);

enum class SetOperation : uint8_t {
  kBoth,      // texts of a that b accepts too
  kOnlyLeft,  // texts of a that b does not accept
};
Result<Dfa> combine(const Dfa& a, const Dfa& b, SetOperation operation, WorkBudget& budget,
                    std::string_view place);

}  // namespace atom::grammar
