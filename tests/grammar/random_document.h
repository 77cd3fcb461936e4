// A random output under a constraint.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "engine/token_constraint.h"
#include "grammar/token_trie.h"

namespace atom::grammar::test {

// The ids whose bits a mask has.
inline std::vector<int32_t> tokens_of(std::span<const uint64_t> mask) {
  std::vector<int32_t> tokens;
  for (size_t word = 0; word < mask.size(); ++word) {
    for (uint64_t bits = mask[word]; bits != 0; bits &= bits - 1) {
      tokens.push_back(
          static_cast<int32_t>(word * 64 + static_cast<size_t>(__builtin_ctzll(bits))));
    }
  }
  return tokens;
}

inline std::vector<int32_t> allowed_tokens(TokenConstraint& constraint, const TokenTrie& trie) {
  std::vector<uint64_t> mask((static_cast<size_t>(trie.vocab_size()) + 63) / 64, ~uint64_t{0});
  constraint.allowed(mask);
  return tokens_of(mask);
}

struct RandomDocument {
  std::string text;
  bool ended = false;  // by a token that ends an output; otherwise there was no way on, or no end
                       // in sight
};

// Follows random allowed tokens, after `wander` of them those that bring an end nearer: an end
// itself, what closes a string or value, else single characters. on_step is called before each.
template <class OnStep>
RandomDocument random_document(TokenConstraint& constraint, const TokenTrie& trie, Random& random,
                               int wander, const OnStep& on_step) {
  constexpr int kMaxSteps = 5000;
  RandomDocument document;
  for (int step = 0; step < kMaxSteps; ++step) {
    on_step();
    const std::vector<int32_t> tokens = allowed_tokens(constraint, trie);
    if (tokens.empty()) return document;
    const auto any_of = [&](const std::vector<int32_t>& ids) {
      return ids[static_cast<size_t>(random.below(static_cast<int64_t>(ids.size())))];
    };
    int32_t chosen = any_of(tokens);
    if (step >= wander) {
      std::vector<int32_t> closing;
      std::vector<int32_t> single;
      std::vector<int32_t> letters;  // that patterns without an end in sight ask for
      for (const int32_t id : tokens) {
        const std::string_view bytes = trie.bytes(id);
        const bool closes = bytes == "\"" || bytes == "}" || bytes == "]";
        if (closes || bytes.empty()) closing.push_back(id);  // an end has no bytes
        if (bytes.size() == 1) single.push_back(id);
        if (bytes == "a" || bytes == "b" || bytes == "c" || bytes == "z") letters.push_back(id);
      }
      if (!single.empty()) chosen = any_of(single);
      if (!letters.empty() && random.below(2) == 0) chosen = any_of(letters);
      if (!closing.empty() && random.below(2) == 0) chosen = any_of(closing);
    }
    if (!constraint.accept(chosen).ok()) return document;
    if (trie.bytes(chosen).empty()) {
      document.ended = true;
      return document;
    }
    document.text += trie.bytes(chosen);
  }
  return document;
}

}  // namespace atom::grammar::test
