// How well a model predicts a text: the figure by which recipes are compared.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/decoder.h"

namespace atom {

struct PerplexityOptions {
  int64_t context = 2048;   // tokens of a window
  int64_t max_windows = 0;  // only the first so many; 0: all
};

struct PerplexityResult {
  double perplexity = 0;  // exp of the mean of window_losses
  int64_t tokens = 0;     // in the windows
  int64_t windows = 0;
  std::vector<double> window_losses;  // nats a token
  double seconds = 0;
};

// Called after each finished window with its number and loss.
using WindowCallback = std::function<void(int64_t window, double loss)>;

// The windows of a text of this many tokens.
int64_t count_windows(int64_t tokens, const PerplexityOptions& options);

// Cuts the text into windows that do not overlap, drops the remainder, and takes for each window
// the mean negative log likelihood of its tokens but the first, each given those before it in the
// window (and the model's constant prefix). Softmax in double over the float logits.
//
// Fails if the text is shorter than a window, if a window exceeds the decoder's limits, if a loss
// is not finite, or (kCancelled) on Ctrl-C.
Result<PerplexityResult> measure_perplexity(Decoder& decoder, std::span<const int32_t> tokens,
                                            const PerplexityOptions& options,
                                            const WindowCallback& on_window = {});

// What a decoder should be made for: batches large enough to keep linears busy, logits in slabs so
// that a vocabulary of 49152 takes 50 MB rather than 400.
DecoderLimits perplexity_limits(int64_t prefix_tokens, const PerplexityOptions& options);

}  // namespace atom
