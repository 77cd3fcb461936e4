#include "load/prompt_source.h"

#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "base/random.h"

namespace atom {
namespace {

constexpr size_t kMaxTextBytes = size_t{64} << 20;
constexpr uint64_t kSharedPrefixSeed = 0x5eedu;

// Common words: nearly all are one token, with the space before them, in vocabularies of 30,000 up.
constexpr std::string_view kCommonWords =
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work government "
    "number night point home water room mother area money story fact month lot right study book "
    "eye job word business issue side kind head house service friend father power hour game line "
    "end member law car city community name president team minute idea body information back "
    "parent face others level office door health person art war history party result change "
    "morning reason research girl guy moment air teacher force education foot boy age policy "
    "process music market sense nation plan college interest death experience effect use class "
    "control care field development role effort rate heart drug show leader light voice wife "
    "police mind price report decision son view relationship town road arm difference value "
    "building action season society tax director position player record paper space ground form "
    "event official matter center couple site project activity star table need court oil "
    "situation cost industry figure street image phone data picture practice piece land product "
    "doctor wall patient worker news test movie north love step open close small large early long "
    "great little own old big high different local certain true whole free strong possible late "
    "hard major better human young national best low clear recent ever never always often still "
    "again here there then now just also very even well only down over under between after before "
    "during without within against among toward about because while where when what which who how";

std::vector<std::string_view> split_words(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  std::vector<std::string_view> words;
  while (true) {
    const size_t begin = text.find_first_not_of(kSpace);
    if (begin == std::string_view::npos) return words;
    text.remove_prefix(begin);
    const size_t length = std::min(text.find_first_of(kSpace), text.size());
    words.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
}

}  // namespace

std::optional<TokenFit> TokenFit::through(int64_t words_a, double tokens_a, int64_t words_b,
                                          double tokens_b) {
  TokenFit fit;
  fit.tokens_per_word = (tokens_b - tokens_a) / static_cast<double>(words_b - words_a);
  fit.overhead = tokens_a - fit.tokens_per_word * static_cast<double>(words_a);
  if (!(fit.tokens_per_word > 0.05 && fit.tokens_per_word < 1000)) return std::nullopt;
  fit.overhead = std::max(0.0, fit.overhead);
  return fit;
}

int64_t TokenFit::words_for(int64_t tokens) const {
  return std::max<int64_t>(
      1, std::llround((static_cast<double>(tokens) - overhead) / tokens_per_word));
}

Result<PromptSource> PromptSource::open(const std::optional<std::filesystem::path>& path,
                                        uint64_t seed) {
  PromptSource source;
  source.seed_ = seed;
  if (!path) {
    source.words_ = split_words(kCommonWords);
    return source;
  }
  source.text_ =
      std::make_unique<const std::string>(ATOM_TRY(read_text_file(*path, kMaxTextBytes)));
  source.words_ = split_words(*source.text_);
  if (source.words_.size() < 2) {
    return error(ErrorCode::kInvalidArgument, "{}: too few words to draw from", path->string());
  }
  return source;
}

std::string PromptSource::prompt(int64_t index, int64_t words, int64_t shared_words) const {
  std::string text;
  const int64_t shared = std::min(words, shared_words);
  append_words(text, seed_ ^ kSharedPrefixSeed, shared);
  append_words(text, Random(seed_ + static_cast<uint64_t>(index)).next(), words - shared);
  return text;
}

void PromptSource::append_words(std::string& text, uint64_t seed, int64_t count) const {
  Random random(seed);
  for (int64_t i = 0; i < count; ++i) {
    if (!text.empty()) text += ' ';
    text += words_[static_cast<size_t>(random.below(static_cast<int64_t>(words_.size())))];
  }
}

}  // namespace atom
