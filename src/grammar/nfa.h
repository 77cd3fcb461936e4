// Nondeterministic automata over bytes, the step between a regular expression and a Dfa.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "grammar/dfa.h"

namespace atom::grammar {

class Nfa {
 public:
  explicit Nfa(std::string_view place) : place_(place) {}

  // Adds the automaton of a tree that begins in state `from`; yields the state where it ends. Fails
  // where the automaton would have too many states.
  Result<int32_t> add(const RegexNode& node, int32_t from, CharSpelling spelling);
  Result<int32_t> add_state();

  // Subset construction; state 0 is the start.
  Result<Dfa> determinize(int32_t accepting, WorkBudget& budget) const;

 private:
  struct State {
    std::vector<ByteEdge> edges;  // in any order, may overlap
    std::vector<int32_t> epsilons;
  };
  Status add_chars(const CharSet& chars, int32_t from, int32_t to, CharSpelling spelling);
  Status add_utf8(char32_t first, char32_t last, int32_t from, int32_t to);
  Status add_bytes(std::string_view bytes, int32_t from, int32_t to);
  State& state(int32_t i) { return states_[static_cast<size_t>(i)]; }
  const State& state(int32_t i) const { return states_[static_cast<size_t>(i)]; }
  std::vector<uint8_t> class_starts() const;

  std::string_view place_;
  std::vector<State> states_;
  int64_t nodes_added_ = 0;
};

}  // namespace atom::grammar
