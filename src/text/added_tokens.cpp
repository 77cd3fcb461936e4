#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace atom {
namespace {

bool has_class(const Utf8Step& step, uint8_t bits) {
  return step.kind == Utf8Step::Kind::kCharacter && (CharClasses::get()(step.code) & bits) != 0;
}

// The character that ends just before `end`. REQUIRES: end > 0.
Utf8Step last_character(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && end - begin < 4 && (static_cast<uint8_t>(text[begin]) & 0xc0) == 0x80) {
    --begin;
  }
  const Utf8Step step = utf8_step(text.data() + begin, text.data() + end);
  return begin + step.length == end ? step : Utf8Step{0xfffd, 1, Utf8Step::Kind::kInvalid};
}

Utf8Step first_character(std::string_view text, size_t begin) {
  return utf8_step(text.data() + begin, text.data() + text.size());
}

}  // namespace

uint32_t AddedTokenMatcher::child(uint32_t node, uint8_t byte) const {
  for (const auto& [label, next] : nodes_[node].next) {
    if (label == byte) return next;
  }
  return 0;  // the root is nobody's child
}

void AddedTokenMatcher::add(const AddedToken& token, std::string_view text) {
  if (text.empty()) return;
  uint32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    uint32_t next = child(node, byte);
    if (next == 0) {
      next = static_cast<uint32_t>(nodes_.size());
      nodes_[node].next.emplace_back(byte, next);
      nodes_.emplace_back();
    }
    node = next;
  }
  if (nodes_[node].token >= 0) return;
  nodes_[node].token = static_cast<int32_t>(tokens_.size());
  starts_[static_cast<uint8_t>(text.front())] = true;
  tokens_.push_back(token);
}

std::vector<AddedTokenMatcher::Part> AddedTokenMatcher::split(std::string_view text,
                                                              bool with_special) const {
  std::vector<Part> parts;
  size_t covered = 0;
  size_t at = 0;
  while (!tokens_.empty() && at < text.size()) {
    if (!starts_[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    int32_t best = -1;
    size_t end = at;
    uint32_t node = 0;
    for (size_t i = at; i < text.size(); ++i) {
      node = child(node, static_cast<uint8_t>(text[i]));
      if (node == 0) break;
      if (nodes_[node].token >= 0) {
        best = nodes_[node].token;
        end = i + 1;
      }
    }
    if (best < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(best)];
    size_t begin = at;
    at = end;
    if (token.special && !with_special) continue;
    if (token.single_word &&
        ((begin > 0 && has_class(last_character(text, begin), kWord)) ||
         (end < text.size() && has_class(first_character(text, end), kWord)))) {
      continue;
    }
    if (token.lstrip) {
      while (begin > covered) {
        const Utf8Step c = last_character(text, begin);
        if (!has_class(c, kSpace)) break;
        begin -= c.length;
      }
    }
    end = std::max(end, covered);  // what is covered behind a token is all spaces
    if (token.rstrip) {
      while (end < text.size()) {
        const Utf8Step c = first_character(text, end);
        if (!has_class(c, kSpace)) break;
        end += c.length;
      }
    }
    begin = std::max(begin, covered);            // spaces may be swallowed already
    if (token.lstrip && begin == end) continue;  // all of it, as part of the token in front
    if (covered < begin) parts.push_back({nullptr, covered, begin});
    parts.push_back({&token, begin, end});
    covered = end;
  }
  if (covered < text.size()) parts.push_back({nullptr, covered, text.size()});
  return parts;
}

}  // namespace atom
