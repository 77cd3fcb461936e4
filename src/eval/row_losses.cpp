#include "eval/row_losses.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/parallel.h"

namespace atom {
namespace {

// -log softmax(logits)[target], in double.
double negative_log_likelihood(std::span<const float> logits, int32_t target) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) {
    sum += std::exp(static_cast<double>(logit) - static_cast<double>(largest));
  }
  return std::log(sum) + static_cast<double>(largest) -
         static_cast<double>(logits[static_cast<size_t>(target)]);
}

}  // namespace

Result<RowLosses> RowLosses::create(Decoder& decoder) {
  return RowLosses(decoder, ATOM_TRY(decoder.backend().make_tensor(decoder.limits().max_logit_rows,
                                                                   decoder.config().vocab)));
}

RowLosses::RowLosses(Decoder& decoder, std::unique_ptr<Tensor> slab)
    : decoder_(&decoder),
      slab_(std::move(slab)),
      host_slab_(static_cast<size_t>(decoder.limits().max_logit_rows * decoder.config().vocab)) {}

void RowLosses::compute(std::span<const int32_t> rows, std::span<const int32_t> targets,
                        std::span<double> losses) {
  ATOM_CHECK(rows.size() == targets.size() && rows.size() == losses.size(),
             "a target and a loss for each row");
  const auto vocab = static_cast<size_t>(decoder_->config().vocab);
  const auto slab_rows = static_cast<size_t>(decoder_->limits().max_logit_rows);
  for (size_t first = 0; first < rows.size(); first += slab_rows) {
    const size_t count = std::min(slab_rows, rows.size() - first);
    decoder_->compute_logits(rows.subspan(first, count), *slab_);
    decoder_->backend().read(*slab_, static_cast<int64_t>(count),
                             std::span(host_slab_).first(count * vocab));
    parallel_for(static_cast<int64_t>(count), [&](int64_t i) {
      const auto row = static_cast<size_t>(i);
      losses[first + row] = negative_log_likelihood(
          std::span(host_slab_).subspan(row * vocab, vocab), targets[first + row]);
    });
  }
}

}  // namespace atom
