#include "eval/rolling.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

namespace atom {
namespace {

int64_t longest_of(std::span<const ScoredText> windows) {
  size_t longest = 1;
  for (const ScoredText& window : windows) longest = std::max(longest, window.tokens.size());
  return static_cast<int64_t>(longest);
}

}  // namespace

std::vector<ScoredText> rolling_windows(std::span<const int32_t> document, int32_t start,
                                        int64_t context) {
  const auto size = static_cast<int64_t>(document.size());
  std::vector<ScoredText> windows;
  for (int64_t scored = 0; scored < size;) {
    const int64_t end = std::min(scored + context, size);
    const int64_t begin = std::max<int64_t>(end - context - 1, 0);
    const auto part =
        document.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    ScoredText window;
    window.tokens.assign(part.size() + (scored == 0 ? 1 : 0), start);
    std::copy_backward(part.begin(), part.end(), window.tokens.end());
    window.begin = window.tokens.size() - static_cast<size_t>(end - scored);
    windows.push_back(std::move(window));
    scored = end;
  }
  return windows;
}

Result<double> rolling_log_likelihood(Decoder& decoder, std::span<const ScoredText> windows,
                                      const std::function<void(int64_t)>& on_windows) {
  const auto scorer = ATOM_TRY(ChoiceScorer::create(decoder, longest_of(windows), 1));
  const std::vector<Question> questions = [&] {
    std::vector<Question> each;
    for (const ScoredText& window : windows) each.push_back({window});
    return each;
  }();
  double sum = 0;
  for (size_t first = 0; first < questions.size();) {
    const auto rest = std::span(questions).subspan(first);
    const auto group = rest.first(scorer->questions_at_once(rest));
    for (const std::vector<double>& scores : ATOM_TRY(scorer->score(group))) sum += scores[0];
    first += group.size();
    if (on_windows) on_windows(static_cast<int64_t>(group.size()));
  }
  if (std::isfinite(sum)) return sum;
  return error(ErrorCode::kCorrupt, "the likelihood of the text is not finite: broken weights?");
}

DecoderLimits rolling_limits(int64_t prefix_tokens, int64_t context) {
  return choice_scorer_limits(prefix_tokens, context + 1);
}

}  // namespace atom
