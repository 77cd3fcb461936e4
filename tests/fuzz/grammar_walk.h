// Following a grammar byte by byte, as the input's bytes choose.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "grammar/automaton.h"

namespace atom::fuzz {

struct Walk {
  std::string text;
  bool complete = false;
};

// Ends where the text is complete and the input says so, or after some hundred bytes. Aborts at a
// dead end: a state that is neither complete nor goes on.
inline Walk walk(grammar::Grammar grammar, const uint8_t* choices, size_t size) {
  static const grammar::TokenTrie* const kBytes = [] {
    static char bytes[256];
    std::vector<grammar::TokenTrie::Token> tokens;
    for (int b = 0; b < 256; ++b) {
      bytes[b] = static_cast<char>(b);
      tokens.push_back({b, std::string_view(bytes + b, 1)});
    }
    return new grammar::TokenTrie(257, std::move(tokens), {256});
  }();
  constexpr size_t kMaxBytes = 300;
  grammar::Automaton automaton(grammar, *kBytes);
  Walk result;
  grammar::Automaton::StateId state = automaton.start();
  while (result.text.size() < kMaxBytes) {
    const uint8_t choice = size == 0 ? 0 : choices[result.text.size() % size];
    result.complete = automaton.is_complete(state);
    if (result.complete && choice % 4 != 1) break;
    const std::span<const uint64_t> mask = automaton.tokens(state, 200'000);
    if (mask.empty()) break;  // too much work
    int byte = -1;
    for (int i = 0; i < 256 && byte < 0; ++i) {
      const int candidate = (choice + i) % 256;
      if ((mask[static_cast<size_t>(candidate) / 64] >> (candidate % 64) & 1) != 0) {
        byte = candidate;
      }
    }
    if (byte < 0) {
      if (!result.complete) std::abort();
      break;
    }
    result.text.push_back(static_cast<char>(byte));
    state = automaton.step(state, static_cast<uint8_t>(byte));
  }
  return result;
}

}  // namespace atom::fuzz
