// The real model in FP32 on the CPU backend against transformers.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "model/model_testing.h"

namespace atom {
namespace {

using testing::must;

TEST(SmolLm2, LogitsAreThoseOfTransformers) {
  const auto path = testing::smollm2_path();
  if (path.empty()) {
    std::fprintf(stderr, "%s\n", testing::kNoSmolLm2);
    GTEST_SKIP() << testing::kNoSmolLm2;
  }
  const testing::Model model =
      testing::load_model(path, "cpu", {.max_tokens = 1024, .max_logit_rows = 1});
  const Json json = must(read_json_file(testing::model_data("smollm2-135m-q4_1.json")));
  const JsonView prompts = must(JsonView(json, "smollm2").at("prompts"));
  ASSERT_GE(prompts.size(), 5u);
  for (size_t p = 0; p < prompts.size(); ++p) {
    const JsonView golden = must(prompts.at(p));
    testing::Prompt prompt{testing::json_array<int32_t>(must(golden.at("tokens"))), {}};
    prompt.rows = {static_cast<int32_t>(prompt.tokens.size() - 1)};
    const std::vector<float> logits = testing::run_prompt(*model.decoder, prompt, 1024);
    const auto top_ids = testing::json_array<size_t>(must(golden.at("top_ids")));
    const auto top_logits = testing::json_array<double>(must(golden.at("top_logits")));
    double worst = 0;
    for (size_t i = 0; i < top_ids.size(); ++i) {
      worst = std::fmax(worst, std::abs(logits[top_ids[i]] - top_logits[i]));
    }
    double sum = 0, squares = 0;
    for (const double logit : logits) {
      sum += logit;
      squares += logit * logit;
    }
    const double sum_miss = sum - must(golden.get_number("sum"));
    const double l2_miss = std::sqrt(squares) - must(golden.get_number("l2"));
    std::printf("prompt %zu: largest difference of the top 20 %.2g, of the sum %.2g, of L2 %.2g\n",
                p, worst, sum_miss, l2_miss);
    EXPECT_LT(worst, 2e-3) << "prompt " << p;
    // The same bound over all logits: their mean, and by the triangle inequality their norm.
    const auto vocab = static_cast<double>(logits.size());
    EXPECT_LT(std::abs(sum_miss) / vocab, 2e-3) << "prompt " << p;
    EXPECT_LT(std::abs(l2_miss) / std::sqrt(vocab), 2e-3) << "prompt " << p;
  }
}

}  // namespace
}  // namespace atom
