// A grammar made deterministic as far as outputs need it.
//
// A *configuration* is a node of the grammar and the frame of what called its rule; a *state* is
// the set of configurations that the bytes so far may have led to. States, their steps and the
// masks of allowed tokens are found when first asked for and kept, so that outputs under the same
// grammar share them.
//
// A *frame* is the set of places that wait for a rule to end: callers that called the same rule at
// the same byte share one frame, as in a graph-structured stack, which keeps states as small as the
// grammar however deep alternatives nest.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "grammar/grammar.h"
#include "grammar/token_trie.h"

namespace atom::grammar {

class Automaton {
 public:
  using StateId = int32_t;
  static constexpr StateId kDead = -1;

  // Both must outlive the automaton.
  Automaton(const Grammar& grammar, const TokenTrie& trie);

  StateId start() const { return start_; }
  // The state after a byte, or kDead.
  StateId step(StateId state, uint8_t byte);
  // The same after some bytes.
  StateId step(StateId state, std::string_view bytes);
  // Whether the text so far is complete.
  bool is_complete(StateId state) const { return states_[index(state)].complete; }

  // The tokens of the trie that may follow, a bit for each id, [ceil(V / 64)] words that live until
  // the next call; no ends of generation. Empty where finding them takes more than max_work
  // configurations, which only a grammar made for the purpose needs.
  std::span<const uint64_t> tokens(StateId state, int64_t max_work = kMaxMaskWork);
  static constexpr int64_t kMaxMaskWork = 4'000'000;

  // The state of another automaton of the same grammar as one of this.
  StateId import(const Automaton& other, StateId state);

  // Memory taken, about.
  size_t bytes() const { return bytes_; }

 private:
  struct Configuration {
    int32_t node = 0;
    int32_t frame = 0;
    auto operator<=>(const Configuration&) const = default;
  };
  // Where the end of a rule leads: back to the node that called it, in that node's frame. Of a
  // repeat, how often it may and must still come after the call that now runs.
  struct Return {
    int32_t node = 0;
    int32_t frame = 0;
    int64_t least = 0;
    int64_t most = 0;
    auto operator<=>(const Return&) const = default;
  };
  struct State {
    std::vector<Configuration> configurations;  // of nodes that read bytes, ascending
    bool complete = false;
    StateId mask_state = kUnknown;  // the state whose mask serves this one
    std::vector<StateId> next;      // by byte class; empty until the first step
    std::vector<uint64_t> mask;     // empty until asked for
  };
  static constexpr StateId kUnknown = -2;
  static constexpr int32_t kBottom = 0;  // the frame of the root rule

  static size_t index(int32_t id) { return static_cast<size_t>(id); }
  // A set of configurations under construction: everything that is reached without reading.
  class Closure;

  int32_t intern_frame(std::vector<Return> returns);
  StateId intern_state(std::vector<Configuration> configurations, bool complete);
  StateId find_step(StateId state, uint8_t byte);
  StateId mask_state_of(StateId state);
  void fill_mask(StateId state, int64_t max_work);

  const Grammar& grammar_;
  const TokenTrie& trie_;
  std::array<uint8_t, 256> class_of_ = {};
  size_t classes_ = 0;
  int64_t count_limit_;  // repeats left beyond which no token can tell the difference
  std::map<std::vector<Return>, int32_t> frame_ids_;
  std::vector<const std::vector<Return>*> frames_;
  std::vector<int32_t> clamped_frames_;  // by frame: the one with counts up to count_limit_
  std::map<std::vector<Configuration>, StateId> state_ids_;
  std::vector<State> states_;
  std::vector<StateId> path_;  // scratch of fill_mask
  int64_t work_ = 0;
  size_t bytes_ = 0;
  StateId start_ = kDead;
};

}  // namespace atom::grammar
