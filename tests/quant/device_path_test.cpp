// The quantizer's way through a backend that quantizes in its own memory, with one whose memory is
// the host's and whose DeviceQuantizer calls the host's functions: the result is the host's.
#include <gtest/gtest.h>

#include <cstring>

#include "base/random.h"
#include "model/model_testing.h"
#include "quant/quantizer.h"

namespace atom {
namespace {

using testing::must;

class FactorOnHost final : public HessianFactor {
 public:
  explicit FactorOnHost(GptqFactor factor) : factor(std::move(factor)) {}
  int64_t size() const override { return factor.size; }
  GptqFactor factor;
};

// Forwards to a CPU backend, and counts what it is asked for beyond.
class BackendWithQuantizer final : public Backend, public DeviceQuantizer {
 public:
  // --- DeviceQuantizer
  KvFormat float_cache() const override { return {}; }
  void clear(Tensor& tensor) override {
    cpu_->write(tensor, std::vector<float>(static_cast<size_t>(tensor.rows() * tensor.cols())));
  }
  void read_columns(const Tensor& from, int64_t rows, int64_t first, int64_t count,
                    std::span<float> to) override {
    const std::vector<float> all = read_all(from);
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(all.data() + r * from.cols() + first, count, to.data() + r * count);
    }
  }
  void read_diagonal(const Tensor& square, std::span<float> to) override {
    const std::vector<float> all = read_all(square);
    for (size_t i = 0; i < to.size(); ++i) to[i] = all[i * to.size() + i];
  }
  Result<std::unique_ptr<HessianFactor>> factor(const HessianArgs& args) override {
    ++factors;
    const std::vector<float> gram = read_all(*args.gram);
    const auto k = static_cast<size_t>(args.gram->rows());
    std::vector<float> hessian(k * k);
    for (size_t i = 0; i < k; ++i) {
      for (size_t j = 0; j < k; ++j) {
        const size_t a = args.order.empty() ? i : static_cast<size_t>(args.order[i]);
        const size_t b = args.order.empty() ? j : static_cast<size_t>(args.order[j]);
        hessian[i * k + j] = gram[a * k + b];
        if (!args.divisors.empty()) hessian[i * k + j] /= args.divisors[a] * args.divisors[b];
      }
    }
    GptqFactor made = ATOM_TRY(factor_hessian(hessian, static_cast<int64_t>(k), args.damping));
    return std::unique_ptr<HessianFactor>(new FactorOnHost(std::move(made)));
  }
  Result<PackedLinear> quantize(const QuantizeWeightsArgs& args) override {
    ++linears;
    const auto* factor = static_cast<const FactorOnHost*>(args.factor);
    return quantize_weights(args.weights, args.rows, args.cols, args.spec,
                            factor == nullptr ? nullptr : &factor->factor, args.importance);
  }

  // --- Backend
  DeviceQuantizer* device_quantizer() override { return this; }
  std::string_view name() const override { return "test"; }
  std::string detail() const override { return "test"; }
  BackendMemory memory() const override { return {.free_bytes = free_bytes, .own = true}; }
  Result<std::unique_ptr<Tensor>> make_tensor(int64_t rows, int64_t cols,
                                              Precision precision) override {
    return cpu_->make_tensor(rows, cols, precision);
  }
  Result<std::unique_ptr<Activations>> make_activations(const LinearFormat& format,
                                                        int64_t channels,
                                                        int64_t max_tokens) override {
    return cpu_->make_activations(format, channels, max_tokens);
  }
  Result<std::unique_ptr<LinearWeights>> load_linear(const PackedLinear& packed) override {
    return cpu_->load_linear(packed);
  }
  Result<std::unique_ptr<KvCache>> make_kv_cache(const KvCacheShape& shape) override {
    return cpu_->make_kv_cache(shape);
  }
  Result<std::unique_ptr<Routing>> make_routing(int64_t experts, int64_t active,
                                                int64_t max_tokens) override {
    return cpu_->make_routing(experts, active, max_tokens);
  }
  void write(Tensor& to, std::span<const float> from) override { cpu_->write(to, from); }
  void read(const Tensor& from, int64_t rows, std::span<float> to) override {
    cpu_->read(from, rows, to);
  }
  HostActivations read(const Activations& from, int64_t tokens) override {
    return cpu_->read(from, tokens);
  }
  HostRouting read(const Routing& from, int64_t tokens) override {
    return cpu_->read(from, tokens);
  }
  Result<std::unique_ptr<TokenIds>> make_token_ids(int64_t size) override {
    return cpu_->make_token_ids(size);
  }
  Result<std::unique_ptr<StepReadback>> make_readback(int64_t rows, int64_t vocab) override {
    return cpu_->make_readback(rows, vocab);
  }
  std::vector<int32_t> read(const TokenIds& from, int64_t count) override {
    return cpu_->read(from, count);
  }
  void run_step(const StepArgs& args, const std::function<void()>& operators) override {
    cpu_->run_step(args, operators);
  }
  void choose_tokens(const Tensor& x, int64_t rows, std::span<const TokenDraw> draws,
                     TokenIds& y) override {
    cpu_->choose_tokens(x, rows, draws, y);
  }
  void embed(const EmbedArgs& args, Tensor& y) override { cpu_->embed(args, y); }
  void rmsnorm(const RmsNormArgs& args, Tensor& y) override { cpu_->rmsnorm(args, y); }
  void rmsnorm_quantize(const RmsNormArgs& args, std::span<const int32_t> perm,
                        Activations& y) override {
    cpu_->rmsnorm_quantize(args, perm, y);
  }
  void quantize(const Tensor& x, int64_t tokens, std::span<const int32_t> perm,
                Activations& y) override {
    cpu_->quantize(x, tokens, perm, y);
  }
  void silu_mul_quantize(const SiluMulArgs& args, Activations& y) override {
    cpu_->silu_mul_quantize(args, y);
  }
  void linear(const LinearArgs& args) override { cpu_->linear(args); }
  void route(const Tensor& scores, int64_t tokens, Routing& routing) override {
    cpu_->route(scores, tokens, routing);
  }
  void gather_routed(const Activations& x, const Routing& routing, int64_t tokens,
                     Activations& y) override {
    cpu_->gather_routed(x, routing, tokens, y);
  }
  void grouped_linear(const GroupedLinearArgs& args) override { cpu_->grouped_linear(args); }
  void combine(const Tensor& x, const Routing& routing, int64_t tokens, Tensor& y) override {
    cpu_->combine(x, routing, tokens, y);
  }
  void rope_append_kv(const RopeAppendArgs& args) override { cpu_->rope_append_kv(args); }
  void paged_attention(const AttentionArgs& args) override { cpu_->paged_attention(args); }
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& y) override {
    cpu_->gather_rows(x, rows, y);
  }
  void dequantize(const Activations& x, int64_t tokens, Tensor& y) override {
    cpu_->dequantize(x, tokens, y);
  }
  void accumulate_gram(const Tensor& x, int64_t tokens, Tensor& h) override {
    cpu_->accumulate_gram(x, tokens, h);
  }

  int64_t factors = 0, linears = 0;
  int64_t free_bytes = 0;

 private:
  std::vector<float> read_all(const Tensor& tensor) {
    std::vector<float> all(static_cast<size_t>(tensor.rows() * tensor.cols()));
    cpu_->read(tensor, tensor.rows(), all);
    return all;
  }
  std::unique_ptr<Backend> cpu_ = testing::make_backend("cpu");
};

class KeptLayers final : public QuantizedModelSink {
 public:
  Status add_ends(const PackedLinear& embedding, const PackedLinear*,
                  std::span<const float>) override {
    linears.push_back(embedding);
    return {};
  }
  Status add_layer(int64_t, const PackedLayer& layer) override {
    for (const PackedLinear* linear : layer.linears()) linears.push_back(*linear);
    vectors.push_back(layer);
    return {};
  }
  std::vector<PackedLinear> linears;
  std::vector<LayerVectors> vectors;
};

KeptLayers quantize_on(Backend& backend, const ModelSource& source,
                       const std::string& recipe_name) {
  Recipe recipe = must(load_recipe(recipe_name));
  recipe.windows = 6;
  recipe.reorder_windows = 4;
  recipe.context = 64;
  Random random(5);
  std::vector<int32_t> text(512);
  for (int32_t& token : text) token = static_cast<int32_t>(random.below(source.config().vocab));
  KeptLayers kept;
  must(quantize_model(source, backend, recipe, text, kept, false));
  return kept;
}

void expect_same(const KeptLayers& got, const KeptLayers& want) {
  ASSERT_EQ(got.linears.size(), want.linears.size());
  for (size_t i = 0; i < want.linears.size(); ++i) {
    const PackedLinear &a = got.linears[i], &b = want.linears[i];
    EXPECT_EQ(a.codes, b.codes) << i;
    EXPECT_EQ(a.scales, b.scales) << i;
    EXPECT_EQ(a.group_scales, b.group_scales) << i;
    EXPECT_EQ(a.group_zeros, b.group_zeros) << i;
    EXPECT_EQ(a.row_scales, b.row_scales) << i;
    EXPECT_EQ(a.outlier_codes, b.outlier_codes) << i;
    EXPECT_EQ(a.outlier_scales, b.outlier_scales) << i;
  }
  ASSERT_EQ(got.vectors.size(), want.vectors.size());
  for (size_t i = 0; i < want.vectors.size(); ++i) {
    EXPECT_EQ(got.vectors[i].qkv_perm, want.vectors[i].qkv_perm);
    EXPECT_EQ(got.vectors[i].attention_norm, want.vectors[i].attention_norm);
    EXPECT_EQ(got.vectors[i].k_mean, want.vectors[i].k_mean);
    EXPECT_EQ(got.vectors[i].prefix_k, want.vectors[i].prefix_k);
  }
}

class DevicePath : public ::testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<ModelSource> source_ = must(open_model_source(testing::model_data("llama")));
};
INSTANTIATE_TEST_SUITE_P(Recipes, DevicePath, ::testing::Values("w4a8", "atom", "rtn"));

TEST_P(DevicePath, GivesWhatTheHostGives) {
  const auto cpu = testing::make_backend("cpu");
  const KeptLayers want = quantize_on(*cpu, *source_, GetParam());
  BackendWithQuantizer device;
  expect_same(quantize_on(device, *source_, GetParam()), want);
  EXPECT_GT(device.linears, 0);
  EXPECT_EQ(device.factors > 0, std::strcmp(GetParam(), "rtn") != 0);
  // Where the states of all windows do not fit into the backend's memory, the host keeps them.
  BackendWithQuantizer small;
  small.free_bytes = 1 << 10;
  expect_same(quantize_on(small, *source_, GetParam()), want);
}

}  // namespace
}  // namespace atom
