#include "text/detokenizer.h"

namespace atom {

IncrementalDetokenizer::IncrementalDetokenizer(const Tokenizer& tokenizer, bool skip_special,
                                               bool at_text_start)
    : tokenizer_(&tokenizer), decoder_(&tokenizer.decoder()), skip_special_(skip_special) {
  start_ = decoder_->start();
  if (!at_text_start) start_ = {false, 0};
}

std::string IncrementalDetokenizer::push(int32_t id) {
  if (skip_special_ && tokenizer_->is_special(id)) return {};
  decoder_->append(id, start_, pending_);
  const size_t certain = pending_.size() - incomplete_suffix(pending_);
  std::string out;
  append_lossy(out, std::string_view(pending_).substr(0, certain), decoder_->invalid_policy());
  pending_.erase(0, certain);
  return out;
}

std::string IncrementalDetokenizer::finish() {
  std::string out;
  append_lossy(out, pending_, decoder_->invalid_policy());
  pending_.clear();
  return out;
}

}  // namespace atom
