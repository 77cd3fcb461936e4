#include "quant/site_statistics.h"

#include <gtest/gtest.h>

#include "backend/ref/ref_backend.h"
#include "base/random.h"

namespace atom {
namespace {

// Two inputs of routed rows for three experts, of which the first brings none for the second.
TEST(Statistics, ExpertsLearnFromTheirOwnRows) {
  ModelConfig config;
  config.hidden = 6;
  config.ffn = 5;
  config.heads = 2;
  config.head_dim = 2;
  config.experts = 3;
  config.active_experts = 2;
  const auto backend = make_ref_backend();
  constexpr int64_t kTokens = 4, kRows = 8;
  const std::vector<int32_t> parts[] = {{0, 4, 4, 8}, {0, 4, 5, 8}};
  for (const bool full : {false, true}) {
    StatisticsCollector collector(*backend, config, kTokens, full);
    ASSERT_TRUE(collector.begin().ok());
    Random random(3);
    std::vector<std::vector<double>> want(3, std::vector<double>(36));  // X^T X of gate_up's input
    for (const auto& offsets : parts) {
      const auto x = backend->make_tensor(kRows, 6).value();
      const auto acts = backend->make_activations(LinearFormat{}, 6, kRows).value();
      std::vector<float> values(kRows * 6);
      for (float& value : values) value = static_cast<float>(random.below(9) - 4);
      backend->write(*x, values);
      backend->quantize(*x, kRows, {}, *acts);
      collector.add(InputSite::kGateUp, *acts, kRows, offsets);
      for (size_t e = 0; e < 3; ++e) {
        for (auto row = static_cast<size_t>(offsets[e]); row < static_cast<size_t>(offsets[e + 1]);
             ++row) {
          for (size_t i = 0; i < 36; ++i) {
            want[e][i] += static_cast<double>(values[row * 6 + i / 6]) * values[row * 6 + i % 6];
          }
        }
      }
    }
    LayerStatistics found = collector.finish();
    ASSERT_EQ(found.mlps.size(), 3u);
    const SiteStatistics all = found.gate_up();
    for (size_t i = 0; i < 36; ++i) {
      for (size_t e = 0; full && e < 3; ++e) {
        EXPECT_EQ(found.mlps[e].gate_up.hessian[i], static_cast<float>(want[e][i]));
      }
      const auto sum = static_cast<float>(want[0][i] + want[1][i] + want[2][i]);
      if (full) {
        EXPECT_EQ(all.hessian[i], sum);
      }
      if (i % 7 != 0) continue;
      for (size_t e = 0; e < 3; ++e) {
        EXPECT_EQ(found.mlps[e].gate_up.energy[i / 7], static_cast<float>(want[e][i]));
      }
      EXPECT_EQ(all.energy[i / 7], sum);
      EXPECT_EQ(found.gate_up_energy()[i / 7], sum);
    }
    EXPECT_EQ(all.hessian.empty(), !full);
    EXPECT_EQ(&found.of(InputSite::kDown, 2), &found.mlps[2].down);
  }
}

}  // namespace
}  // namespace atom
