// A grammar over a vocabulary of single bytes, to ask it about whole texts.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/token_trie.h"

namespace atom::grammar::test {

// Token b is the byte b, token 256 the end.
inline std::shared_ptr<const TokenTrie> byte_tokens() {
  static const std::vector<std::string> kBytes = [] {
    std::vector<std::string> bytes;
    for (int b = 0; b < 256; ++b) bytes.emplace_back(1, static_cast<char>(b));
    return bytes;
  }();
  std::vector<TokenTrie::Token> tokens;
  for (int32_t b = 0; b < 256; ++b) tokens.push_back({b, kBytes[static_cast<size_t>(b)]});
  return std::make_shared<const TokenTrie>(257, std::move(tokens), std::vector<int32_t>{256});
}

class ByteAutomaton {
 public:
  explicit ByteAutomaton(Grammar grammar)
      : grammar_(std::make_unique<Grammar>(std::move(grammar))),
        trie_(byte_tokens()),
        automaton_(std::make_unique<Automaton>(*grammar_, *trie_)) {}

  bool accepts(std::string_view text) {
    const Automaton::StateId state = automaton_->step(automaton_->start(), text);
    return state != Automaton::kDead && automaton_->is_complete(state);
  }
  Automaton& automaton() { return *automaton_; }

 private:
  std::unique_ptr<Grammar> grammar_;
  std::shared_ptr<const TokenTrie> trie_;
  std::unique_ptr<Automaton> automaton_;
};

}  // namespace atom::grammar::test
