// The likelihood of a whole document, every token of it: lm-eval's loglikelihood_rolling.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/status.h"
#include "eval/choice_scorer.h"
#include "model/decoder.h"

namespace atom {

// A document cut so that each token is scored once. A window is what `context` tokens predict: the
// first one predicts the document's beginning from `start` (a BOS, as a rule), each further one
// begins with the last token of the window before it, and the last window reaches back over tokens
// already scored, so that it has as many to predict from.
std::vector<ScoredText> rolling_windows(std::span<const int32_t> document, int32_t start,
                                        int64_t context);

// The log-likelihood of a document in nats. The decoder is made for rolling_limits(). Fails where
// it is not finite, or (kCancelled) on Ctrl-C. on_windows is told how many windows are done now.
Result<double> rolling_log_likelihood(Decoder& decoder, std::span<const ScoredText> windows,
                                      const std::function<void(int64_t)>& on_windows = {});

DecoderLimits rolling_limits(int64_t prefix_tokens, int64_t context);

}  // namespace atom
