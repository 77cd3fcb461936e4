// One output on its way through the engine: its tokens, and what of them is in the KV cache.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "engine/page_pool.h"

namespace atom {

//   tokens   [ ... past ... | in flight | pending ... ]  (+ those that running steps will add)
//              in the cache   running     to be run
struct Sequence {
  enum class State : uint8_t { kWaiting, kRunning, kEnded };

  // Given at the start.
  std::pair<int64_t, int64_t> rank;  // the smaller goes first
  std::vector<int32_t> tokens;       // prompt, then what was generated
  int64_t prompt_length = 0;
  int64_t limit = 0;        // tokens it may have; it ends there. At least prompt_length
  int64_t scored_from = 0;  // of the prompt: logits of tokens from here up to the last but one
                            // are still wanted, for logprobs; prompt_length: none
  PageLink root;            // which sequences it may share pages with

  // The scheduler's.
  State state = State::kWaiting;
  std::vector<int32_t> pages;
  PageLink link;          // of its published pages
  int64_t published = 0;  // its first pages that can be found, or whose equals can
  int64_t past = 0;
  int64_t in_flight = 0;  // in steps that run, the last of them perhaps not known yet
  int64_t awaits = 0;     // tokens that running steps will add
  int64_t residence =
      0;  // counts preemptions, so that a step knows whether its pages are still there

  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  bool generates() const { return limit > prompt_length; }
  // Tokens that a step formed now can count on, and where it begins.
  int64_t known() const { return length() + awaits; }
  int64_t next() const { return past + in_flight; }
  // Tokens for the next step; none when a running one adds the last.
  int64_t pending() const { return awaits > 0 && known() >= limit ? 0 : known() - next(); }
  // Logits are wanted of the tokens from here to the last known one.
  int64_t wanted_from() const {
    if (scored_from < prompt_length - 1) return scored_from;
    return generates() ? known() - 1 : known();
  }
};

}  // namespace atom
