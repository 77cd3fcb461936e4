// The tokens of a vocabulary as one tree of bytes, so that all of them can be tried at once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "grammar/grammar.h"

namespace atom {
class Tokenizer;
}

namespace atom::grammar {

class TokenTrie {
 public:
  // A token's bytes; tokens without any (special and unused ids) are never part of an output.
  struct Token {
    int32_t id = 0;
    std::string_view bytes;
  };
  // vocab_size: one more than the highest id; end_ids: the model's ends of generation.
  TokenTrie(int32_t vocab_size, std::vector<Token> tokens, std::vector<int32_t> end_ids);
  // From all tokens that are neither special nor ends of generation.
  TokenTrie(const Tokenizer& tokenizer, std::vector<int32_t> end_ids);

  // The tree in preorder without its root: the first child stands behind its parent, the next
  // sibling at `end`.
  struct Node {
    uint8_t byte = 0;
    uint32_t depth = 0;       // of the root's children: 1
    uint32_t end = 0;         // behind the last node below this one
    uint32_t tokens_end = 0;  // of ids() from the previous node's on: the tokens that end here
  };
  std::span<const Node> nodes() const { return nodes_; }
  std::span<const int32_t> ids() const { return ids_; }

  int32_t vocab_size() const { return vocab_size_; }
  std::span<const int32_t> end_ids() const { return end_ids_; }
  std::string_view bytes(int32_t id) const;            // empty for ids that no output holds
  uint32_t longest_token() const { return longest_; }  // bytes
  // Bytes that are a token by themselves: with these any text can be completed.
  const ByteSet& single_bytes() const { return single_bytes_; }

 private:
  int32_t vocab_size_;
  std::vector<int32_t> end_ids_;
  std::vector<Node> nodes_;
  std::vector<int32_t> ids_;  // sorted by bytes
  std::vector<char> pool_;    // all tokens' bytes
  struct Part {
    uint32_t begin = 0;
    uint32_t size = 0;
  };
  std::vector<Part> parts_;  // of pool_, by id
  uint32_t longest_ = 0;
  ByteSet single_bytes_;
};

}  // namespace atom::grammar
