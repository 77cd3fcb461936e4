#include "ops/activation_cases.h"

namespace atom {

std::vector<LinearFormat> every_activation_format() {
  std::vector<LinearFormat> formats = {LinearFormat{}};
  formats.push_back(grouped_format(4, 32, 16, OutlierKind::kInt8));  // float activations
  struct Outliers {
    OutlierKind kind;
    int64_t count;
  };
  struct Choice {
    float clip;
    bool search;
  };
  for (const Outliers outliers :
       {Outliers{OutlierKind::kNone, 0}, Outliers{OutlierKind::kFloat, 5},
        Outliers{OutlierKind::kInt8, 5}, Outliers{OutlierKind::kInt8, 64}}) {
    for (const int64_t group : {0, 4, 32, 64, 128}) {
      for (const int bits : {3, 4, 8}) {
        for (const ActRule rule : {ActRule::kSymmetric, ActRule::kSigned, ActRule::kAsymmetric}) {
          if (rule == ActRule::kAsymmetric && bits == 8) continue;
          for (const Choice choice :
               {Choice{1.0f, false}, Choice{0.9f, false}, Choice{0.9f, true}}) {
            formats.push_back(
                grouped_format(4, group, outliers.count, outliers.kind,
                               act_format(bits, group, rule, choice.clip, choice.search)));
          }
        }
      }
      for (const Choice choice : {Choice{1.0f, false}, Choice{0.9f, false}, Choice{0.9f, true}}) {
        formats.push_back(fp4_format(group, outliers.count, outliers.kind,
                                     fp4_acts(group, choice.clip, choice.search)));
      }
    }
    for (const Choice choice : {Choice{1.0f, false}, Choice{0.9f, false}, Choice{0.9f, true}}) {
      for (const int64_t group : {0, 16, 64}) {
        formats.push_back(nvfp4_format(group, outliers.count, outliers.kind,
                                       nvfp4_acts(group, choice.clip, choice.search)));
      }
    }
  }
  return formats;
}

int64_t channels_of(const LinearFormat& format) {
  const WeightFormat& w = format.weight;
  return (w.group == 0 ? 172 : 2 * w.group) + w.outliers;
}

Matrix difficult_rows(int64_t channels) {
  constexpr float kDenormal = 1e-41f;
  const std::vector<std::vector<float>> kinds = {
      {0.0f},
      {-0.0f, 0.0f},
      {1.0f},
      {-1.0f},
      {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 5.0f},
      {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, -5.0f},
      {kDenormal, -kDenormal},
      {0x1p-100f, 0x1p-101f},       // the smallest group that counts
      {0x1.fffffep-101f},           // the largest that does not
      {0x1p120f, -0x1p119f, 1.0f},  // the largest group that counts
      {0x1.000002p120f, 1.0f},      // the smallest that does not
      {1e30f, -1e-30f, 1.0f},
      {0.5f, 1.5f, 2.5f, 3.5f, -0.5f, -1.5f, -2.5f, 7.0f},   // ties under scale 1
      {0.5f, 1.5f, 2.5f, 3.5f, -0.5f, -1.5f, -2.5f, -8.0f},  // ties under the signed rule
      {0.5f, 1.5f, 2.5f, 15.0f, 0.0f, 14.5f},                // ties of the asymmetric rule
      {0.5f, 1.5f, 2.5f, 3.5f, 5.0f, 7.0f, 10.0f, -12.0f},   // ties of E2M1
      {-0.5f, -1.5f, -2.5f, -3.5f, -5.0f, -7.0f, -10.0f, 12.0f},
      {3.0f, 4.0f, 5.0f},  // far from zero, one sign
      {-3.0f, -4.0f, -5.0f},
      {2.0f, -2.0f, 1.0f},  // both ends equal: the positive one decides the sign
      {127.0f, 126.5f, 0.5f, -127.5f, -63.5f},
  };
  Matrix m(static_cast<int64_t>(kinds.size()), channels);
  for (size_t i = 0; i < kinds.size(); ++i) {
    const std::span<float> row = m.row(static_cast<int64_t>(i));
    for (size_t k = 0; k < row.size(); ++k) row[k] = kinds[i][k % kinds[i].size()];
  }
  return m;
}

HostActivations filled(Backend& backend, const LinearFormat& format, int64_t channels,
                       int64_t tokens, const std::function<void(Activations&)>& op) {
  const int64_t all = tokens + kSentinelRows;
  const auto acts = make_acts(backend, format, channels, all);
  EXPECT_EQ(acts->channels(), channels);
  EXPECT_GE(acts->max_tokens(), all);
  EXPECT_EQ(acts->format(), format);
  backend.quantize(*make_input(backend, random_matrix(all, channels, 99)), all, {}, *acts);
  const HostActivations before = backend.read(*acts, all);
  op(*acts);
  const HostActivations after = backend.read(*acts, all);
  const auto tail = [&](const auto& array) {
    const auto per_token = static_cast<int64_t>(array.size()) / all;
    return std::vector(array.end() - kSentinelRows * per_token, array.end());
  };
  EXPECT_EQ(tail(before.codes), tail(after.codes)) << "tokens after the last one were written";
  EXPECT_EQ(tail(before.scales), tail(after.scales));
  EXPECT_EQ(tail(before.outlier_scales), tail(after.outlier_scales));
  EXPECT_EQ(tail(before.values), tail(after.values));
  return backend.read(*acts, tokens);
}

HostActivations run_quantize(Backend& backend, const LinearFormat& format, const Matrix& x,
                             std::span<const int32_t> perm) {
  return filled(backend, format, x.cols, x.rows, [&](Activations& acts) {
    backend.quantize(*make_input(backend, x), x.rows, perm, acts);
  });
}

}  // namespace atom
