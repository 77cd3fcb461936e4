// Choosing a token from each of many rows of logits.
#include "backend/cuda/bench/bench.h"
#include "backend/cuda/rows/row_kernels.h"
#include "base/random.h"

namespace atom::cuda::bench {
namespace {

struct NamedDraw {
  const char* name;
  TokenDraw draw;  // of normal logits that spread by draw.scale
};
constexpr uint64_t kMostOfAll = UINT64_MAX / 20 * 19;  // 0.95
constexpr NamedDraw kDraws[] = {
    {"temperature", {.scale = 3}},
    {"min_p", {.scale = 3, .min_weight = kFullWeight / 20}},
    {"top_k 50", {.scale = 3, .top_k = 50}},
    {"top_p 0.95", {.scale = 3, .top_p = kMostOfAll}},
    {"top_k 50, top_p 0.95", {.scale = 3, .top_k = 50, .top_p = kMostOfAll}}};

// Rows of logits.
struct Logits {
  int64_t rows, vocab;
};

}  // namespace

Status bench_sampling(const Run& run) {
  for (const Logits& size : {Logits{1, 32000}, Logits{16, 32000}, Logits{128, 32000},
                             Logits{128, 49152}, Logits{1, 151936}, Logits{128, 151936}}) {
    const int64_t count = size.rows * size.vocab;
    const int copies = rotations(4 * count);
    const auto values = ATOM_TRY(random_floats(count, 7)).to_host();
    std::vector<DeviceArray<float>> x;
    for (int i = 0; i < copies; ++i) x.push_back(ATOM_TRY(DeviceArray<float>::copy_of(values)));
    auto ids = ATOM_TRY(DeviceArray<int32_t>::allocate(size.rows));
    const auto measure = [&](const TokenDraw* draws) {
      const auto choose = [&](int copy, cudaStream_t stream) {
        launch_choose({.x = x[static_cast<size_t>(copy)].data(),
                       .draws = draws,
                       .y = ids.data(),
                       .rows = size.rows,
                       .cols = size.vocab},
                      stream);
      };
      return time_us(copies, choose, run.options.samples);
    };
    const Timing argmax = measure(nullptr);
    for (const NamedDraw& named : kDraws) {
      std::vector<TokenDraw> draws(static_cast<size_t>(size.rows), named.draw);
      Random random(8);
      for (TokenDraw& draw : draws) draw.random = random.next();
      const auto on_chip = ATOM_TRY(DeviceArray<TokenDraw>::copy_of(draws));
      KernelFigure figure =
          run.figure("sampling", fmt::format("{} rows of {}", size.rows, size.vocab), named.name,
                     measure(on_chip.data()), 0, 4.0 * static_cast<double>(count));
      figure.baselines = {{.name = "argmax", .us = argmax.median}};
      ATOM_TRY(run.each(figure));
    }
  }
  return {};
}

}  // namespace atom::cuda::bench
