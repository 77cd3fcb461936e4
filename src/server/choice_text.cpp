#include "server/choice_text.h"

#include <algorithm>
#include <utility>

namespace atom {

int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; });
}

ChoiceText::ChoiceText(const Tokenizer& tokenizer, bool skip_special, std::vector<std::string> stop,
                       bool keep_logprobs, int64_t offset)
    : detokenizer_(tokenizer, skip_special, /*at_text_start=*/false),
      stop_(std::move(stop)),
      keep_logprobs_(keep_logprobs),
      decoded_(offset),
      certain_(offset) {}

bool ChoiceText::push(const ScoredToken& token) {
  if (stop_.stopped()) return false;
  ++tokens_;
  if (keep_logprobs_) held_.push_back({token, decoded_});
  const std::string piece = detokenizer_.push(token.token);
  decoded_ += count_characters(piece);
  add(stop_.push(piece));
  if (stop_.stopped()) held_.clear();  // tokens of the stop string alone
  return !stop_.stopped();
}

void ChoiceText::finish(const ScoredToken& stop) {
  if (stop_.stopped()) return;
  const std::string rest = detokenizer_.finish();
  decoded_ += count_characters(rest);
  add(stop_.push(rest));
  if (!stop_.stopped()) {
    add(stop_.finish());
    std::move(held_.begin(), held_.end(), std::back_inserter(ready_.logprobs));
    if (keep_logprobs_ && stop.token >= 0) ready_.logprobs.push_back({stop, decoded_});
  }
  held_.clear();
}

void ChoiceText::add(std::string text) {
  certain_ += count_characters(text);
  ready_.text += text;
  if (held_.empty()) return;
  // With everything given out, so are tokens without text of their own.
  const auto certain = [&](const PlacedToken& token) {
    return token.offset < certain_ || (certain_ == decoded_ && !stop_.stopped());
  };
  const auto end = std::find_if_not(held_.begin(), held_.end(), certain);
  std::move(held_.begin(), end, std::back_inserter(ready_.logprobs));
  held_.erase(held_.begin(), end);
}

TextPiece ChoiceText::take() { return std::exchange(ready_, {}); }

}  // namespace atom
