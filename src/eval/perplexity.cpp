#include "eval/perplexity.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>

#include "base/interrupt.h"
#include "eval/row_losses.h"
#include "model/batching.h"

namespace atom {
namespace {

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Runs groups of windows side by side, each group in chunks, and adds up their losses.
class WindowRunner {
 public:
  static Result<std::unique_ptr<WindowRunner>> create(Decoder& decoder, int64_t context) {
    std::unique_ptr<WindowRunner> runner(
        new WindowRunner(decoder, context, ATOM_TRY(RowLosses::create(decoder))));
    runner->cache_ = ATOM_TRY(decoder.make_cache(runner->batcher_.pages()));
    return runner;
  }

  int64_t windows_at_once() const { return windows_at_once_; }

  // tokens [windows, context], losses [windows].
  Status run(std::span<const int32_t> tokens, std::span<double> losses) {
    const auto windows = static_cast<int64_t>(losses.size());
    // As few chunks as fit, of about the same size.
    const int64_t chunks = ceil_divide(context_, decoder_.limits().max_tokens);
    const int64_t chunk = ceil_divide(context_, chunks);
    std::fill(losses.begin(), losses.end(), 0.0);
    for (int64_t begin = 0; begin < context_; begin += chunk) {
      ATOM_TRY(check_interrupted());
      const int64_t end = std::min(begin + chunk, context_);
      ATOM_TRY(decoder_.run(batcher_.chunk(tokens, begin, end), *cache_));
      add_losses(tokens, windows, begin, end, losses);
    }
    for (double& loss : losses) loss /= static_cast<double>(context_ - 1);
    return {};
  }

 private:
  WindowRunner(Decoder& decoder, int64_t context, RowLosses row_losses)
      : decoder_(decoder),
        context_(context),
        windows_at_once_(std::max<int64_t>(1, decoder.limits().max_tokens / context)),
        batcher_(windows_at_once_, context, decoder.weights().prefix_tokens),
        row_losses_(std::move(row_losses)) {}

  // The chunk [begin, end) of every window has been run; its last token has no target in the
  // window if it is the window's last.
  void add_losses(std::span<const int32_t> tokens, int64_t windows, int64_t begin, int64_t end,
                  std::span<double> losses) {
    rows_.clear();
    targets_.clear();
    for (int64_t w = 0; w < windows; ++w) {
      for (int64_t t = begin; t < std::min(end, context_ - 1); ++t) {
        rows_.push_back(static_cast<int32_t>(w * (end - begin) + t - begin));
        targets_.push_back(tokens[static_cast<size_t>(w * context_ + t + 1)]);
      }
    }
    const size_t per_window = rows_.size() / static_cast<size_t>(windows);
    chunk_losses_.resize(rows_.size());
    row_losses_.compute(rows_, targets_, chunk_losses_);
    for (size_t i = 0; i < rows_.size(); ++i) losses[i / per_window] += chunk_losses_[i];
  }

  Decoder& decoder_;
  int64_t context_;
  int64_t windows_at_once_;
  WindowBatcher batcher_;
  std::unique_ptr<KvCache> cache_;
  RowLosses row_losses_;
  std::vector<int32_t> rows_;     // of the batch just run, window by window
  std::vector<int32_t> targets_;  // the token that follows each row
  std::vector<double> chunk_losses_;
};

}  // namespace

int64_t count_windows(int64_t tokens, const PerplexityOptions& options) {
  const int64_t windows = tokens / options.context;
  return options.max_windows > 0 ? std::min(windows, options.max_windows) : windows;
}

DecoderLimits perplexity_limits(int64_t prefix_tokens, const PerplexityOptions& options) {
  return {.max_tokens = kEvalBatchTokens,
          .max_logit_rows = kEvalLogitRows,
          .positions = prefix_tokens + options.context};
}

Result<PerplexityResult> measure_perplexity(Decoder& decoder, std::span<const int32_t> tokens,
                                            const PerplexityOptions& options,
                                            const WindowCallback& on_window) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t room = decoder.limits().positions - decoder.weights().prefix_tokens;
  if (options.context < 2 || options.context > room) {
    return error(ErrorCode::kInvalidArgument, "a window of {} tokens is not within 2..{}",
                 options.context, room);
  }
  PerplexityResult result;
  result.windows = count_windows(static_cast<int64_t>(tokens.size()), options);
  if (result.windows == 0) {
    return error(ErrorCode::kInvalidArgument, "the text has {} tokens, a window needs {}",
                 tokens.size(), options.context);
  }
  result.tokens = result.windows * options.context;
  result.window_losses.resize(static_cast<size_t>(result.windows));

  const auto runner = ATOM_TRY(WindowRunner::create(decoder, options.context));
  for (int64_t first = 0; first < result.windows; first += runner->windows_at_once()) {
    const int64_t count = std::min(runner->windows_at_once(), result.windows - first);
    const auto losses = std::span(result.window_losses)
                            .subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    ATOM_TRY(runner->run(tokens.subspan(static_cast<size_t>(first * options.context),
                                        static_cast<size_t>(count * options.context)),
                         losses));
    for (int64_t w = first; w < first + count; ++w) {
      const double loss = result.window_losses[static_cast<size_t>(w)];
      if (!std::isfinite(loss)) {
        return error(ErrorCode::kCorrupt, "the loss of window {} is not finite: broken weights?",
                     w);
      }
      if (on_window) on_window(w, loss);
    }
  }
  const double mean =
      std::accumulate(result.window_losses.begin(), result.window_losses.end(), 0.0) /
      static_cast<double>(result.windows);
  result.perplexity = std::exp(mean);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace atom
