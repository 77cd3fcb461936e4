#include "grammar/token_trie.h"

#include <algorithm>
#include <utility>

#include "text/tokenizer.h"

namespace atom::grammar {
namespace {

std::vector<TokenTrie::Token> plain_tokens(const Tokenizer& tokenizer,
                                           const std::vector<int32_t>& end_ids) {
  std::vector<TokenTrie::Token> tokens;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const bool ends = std::find(end_ids.begin(), end_ids.end(), id) != end_ids.end();
    if (!ends && !tokenizer.is_special(id)) tokens.push_back({id, tokenizer.token_bytes(id)});
  }
  return tokens;
}

}  // namespace

TokenTrie::TokenTrie(const Tokenizer& tokenizer, std::vector<int32_t> end_ids)
    : TokenTrie(tokenizer.vocab_size(), plain_tokens(tokenizer, end_ids), end_ids) {}

TokenTrie::TokenTrie(int32_t vocab_size, std::vector<Token> tokens, std::vector<int32_t> end_ids)
    : vocab_size_(vocab_size),
      end_ids_(std::move(end_ids)),
      parts_(static_cast<size_t>(vocab_size)) {
  std::erase_if(tokens, [](const Token& token) { return token.bytes.empty(); });
  std::sort(tokens.begin(), tokens.end(), [](const Token& a, const Token& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.id < b.id;
  });
  std::vector<uint32_t> path;  // the nodes above the one that comes next
  std::string_view last;
  for (const Token& token : tokens) {
    ATOM_CHECK(token.id >= 0 && token.id < vocab_size, "a token's id is within the vocabulary");
    const auto common = static_cast<size_t>(
        std::mismatch(last.begin(), last.end(), token.bytes.begin(), token.bytes.end()).first -
        last.begin());
    for (; path.size() > common; path.pop_back()) {
      nodes_[path.back()].end = static_cast<uint32_t>(nodes_.size());
    }
    for (size_t i = common; i < token.bytes.size(); ++i) {
      path.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back({static_cast<uint8_t>(token.bytes[i]), static_cast<uint32_t>(i + 1), 0,
                        static_cast<uint32_t>(ids_.size())});
    }
    ids_.push_back(token.id);
    nodes_.back().tokens_end = static_cast<uint32_t>(ids_.size());

    parts_[static_cast<size_t>(token.id)] = {static_cast<uint32_t>(pool_.size()),
                                             static_cast<uint32_t>(token.bytes.size())};
    pool_.insert(pool_.end(), token.bytes.begin(), token.bytes.end());
    longest_ = std::max(longest_, static_cast<uint32_t>(token.bytes.size()));
    if (token.bytes.size() == 1) single_bytes_.set(static_cast<uint8_t>(token.bytes[0]));
    last = token.bytes;
  }
  for (const uint32_t node : path) nodes_[node].end = static_cast<uint32_t>(nodes_.size());
}

std::string_view TokenTrie::bytes(int32_t id) const {
  if (id < 0 || id >= vocab_size_) return {};
  const Part part = parts_[static_cast<size_t>(id)];
  return {pool_.data() + part.begin, part.size};
}

}  // namespace atom::grammar
