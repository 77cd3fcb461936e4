#include "backend/cpu/cpu_backend.h"

#include <algorithm>

#include "backend/cpu/attention.h"
#include "backend/cpu/cpu_features.h"
#include "backend/cpu/float_linear.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/kv_cache.h"
#include "backend/cpu/linear_weights.h"
#include "backend/cpu/objects.h"
#include "base/parallel.h"
#include "ops/draw.h"
#include "ops/host_step.h"
#include "ops/numerics.h"
#include "ops/routing.h"

namespace atom {
namespace cpu {
namespace {

template <class T>
Result<std::unique_ptr<T>> as_base(auto made) {
  if (!made.ok()) return made.status();
  return std::unique_ptr<T>(std::move(made).value());
}

// body(t) for every token, some together: a token alone is too little work to hand out.
template <class Body>
void for_tokens(int64_t tokens, Body&& body) {
  constexpr int64_t kTogether = 4;
  parallel_for((tokens + kTogether - 1) / kTogether, [&](int64_t i) {
    const int64_t end = std::min(tokens, (i + 1) * kTogether);
    for (int64_t t = i * kTogether; t < end; ++t) body(t);
  });
}

// Where row `first` of rows of `stride` values stands in a buffer that may be empty.
template <class T>
const T* at_row(const AlignedBuffer<T>& buffer, int64_t first, int64_t stride) {
  return buffer.data() == nullptr ? nullptr : buffer.data() + first * stride;
}

const HostRouting& routed(const Routing& routing, int64_t tokens) {
  const auto& table = static_cast<const RoutingTable&>(routing);
  ATOM_CHECK(tokens == table.tokens(), "not the tokens that were routed");
  return table.table();
}

const int32_t* perm_or_null(std::span<const int32_t> perm) {
  return perm.empty() ? nullptr : perm.data();
}

// Whether activations made for one format can feed a linear of another.
bool readable(const LinearFormat& acts, const LinearFormat& linear) {
  if (acts.act.quantized != linear.act.quantized) return false;
  return !acts.act.quantized ||
         (acts.act == linear.act && acts.weight.group == linear.weight.group &&
          acts.weight.outliers == linear.weight.outliers &&
          acts.weight.outlier_kind == linear.weight.outlier_kind);
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const Kernels& kernels) : kernels_(kernels) {}

  std::string_view name() const override { return "cpu"; }
  std::string detail() const override {
    return fmt::format("cpu {}, {} threads", kernels_.name, thread_count());
  }

  Result<std::unique_ptr<Tensor>> make_tensor(int64_t rows, int64_t cols,
                                              Precision /*precision*/) override {
    return as_base<Tensor>(CpuTensor::create(rows, cols));
  }
  Result<std::unique_ptr<Activations>> make_activations(const LinearFormat& format,
                                                        int64_t channels,
                                                        int64_t max_tokens) override {
    return as_base<Activations>(CpuActivations::create(format, channels, max_tokens));
  }
  Result<std::unique_ptr<LinearWeights>> load_linear(const PackedLinear& packed) override {
    return as_base<LinearWeights>(CpuLinear::create(packed, weights_));
  }
  Result<std::unique_ptr<KvCache>> make_kv_cache(const KvCacheShape& shape) override {
    return as_base<KvCache>(CpuKvCache::create(shape));
  }
  Result<std::unique_ptr<Routing>> make_routing(int64_t experts, int64_t active,
                                                int64_t max_tokens) override {
    return std::unique_ptr<Routing>(std::make_unique<RoutingTable>(experts, active, max_tokens));
  }
  Result<std::unique_ptr<TokenIds>> make_token_ids(int64_t size) override {
    return std::unique_ptr<TokenIds>(std::make_unique<HostTokenIds>(size));
  }
  Result<std::unique_ptr<StepReadback>> make_readback(int64_t, int64_t) override {
    return std::unique_ptr<StepReadback>(std::make_unique<HostReadback>());
  }

  void run_step(const StepArgs& args, const std::function<void()>& operators) override {
    run_host_step(args, operators,
                  args.logits == nullptr ? nullptr : static_cast<CpuTensor&>(*args.logits).row(0));
  }

  void write(Tensor& to, std::span<const float> from) override {
    auto& tensor = static_cast<CpuTensor&>(to);
    ATOM_CHECK(static_cast<int64_t>(from.size()) <= to.rows() * to.cols(), "write past the end");
    std::copy(from.begin(), from.end(), tensor.row(0));
  }
  void read(const Tensor& from, int64_t rows, std::span<float> to) override {
    const auto& tensor = static_cast<const CpuTensor&>(from);
    ATOM_CHECK(rows <= from.rows() && static_cast<int64_t>(to.size()) >= rows * from.cols(),
               "read past the end");
    std::copy_n(tensor.row(0), rows * from.cols(), to.data());
  }
  HostActivations read(const Activations& from, int64_t tokens) override;
  HostRouting read(const Routing& from, int64_t tokens) override { return routed(from, tokens); }
  std::vector<int32_t> read(const TokenIds& from, int64_t count) override {
    ATOM_CHECK(count <= from.size(), "read past the end");
    const auto& ids = static_cast<const HostTokenIds&>(from).ids;
    return {ids.begin(), ids.begin() + count};
  }

  void embed(const EmbedArgs& args, Tensor& y) override;
  void rmsnorm(const RmsNormArgs& args, Tensor& y) override;
  void rmsnorm_quantize(const RmsNormArgs& args, std::span<const int32_t> perm,
                        Activations& y) override;
  void quantize(const Tensor& x, int64_t tokens, std::span<const int32_t> perm,
                Activations& y) override;
  void silu_mul_quantize(const SiluMulArgs& args, Activations& y) override;
  void linear(const LinearArgs& args) override { linear_rows(args, 0); }
  void route(const Tensor& scores, int64_t tokens, Routing& routing) override;
  void gather_routed(const Activations& x, const Routing& routing, int64_t tokens,
                     Activations& y) override;
  void grouped_linear(const GroupedLinearArgs& args) override;
  void combine(const Tensor& x, const Routing& routing, int64_t tokens, Tensor& y) override;
  void rope_append_kv(const RopeAppendArgs& args) override { cpu::rope_append_kv(kernels_, args); }
  void paged_attention(const AttentionArgs& args) override {
    cpu::paged_attention(kernels_, args, attention_);
  }
  void choose_tokens(const Tensor& x, int64_t rows, std::span<const TokenDraw> draws,
                     TokenIds& y) override;
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& y) override;
  void dequantize(const Activations& x, int64_t tokens, Tensor& y) override;
  void accumulate_gram(const Tensor& x, int64_t tokens, Tensor& h) override;

 private:
  template <class FillRow>
  void quantize_rows(int64_t tokens, Activations& to, FillRow&& fill);
  void quantize_row(CpuActivations& acts, int64_t t, const float* values);
  void dequantize_row(const CpuActivations& acts, int64_t t, float* to) const;
  // A linear of rows [first, first + args.tokens) of x and y.
  void linear_rows(const LinearArgs& args, int64_t first);
  void integer_linear(const LinearArgs& args, int64_t first);
  void float_product(const LinearArgs& args, int64_t first, const float* x, int64_t first_channel);

  const Kernels& kernels_;
  HugePageArena weights_;
  TokenChooser chooser_;
  AttentionWorkspace attention_;
  AlignedBuffer<float> floats_;  // dequantized activations of float weights
  std::vector<int32_t> ids_;     // of one embed
};

// fill(t, row) writes token t's values in permuted order, [K].
template <class FillRow>
void CpuBackend::quantize_rows(int64_t tokens, Activations& to, FillRow&& fill) {
  auto& acts = static_cast<CpuActivations&>(to);
  ATOM_CHECK(tokens <= acts.max_tokens(), "more tokens than the activations hold");
  for_tokens(tokens, [&](int64_t t) {
    if (!acts.layout.quantized) {
      fill(t, acts.values.data() + t * acts.layout.value_stride);
      return;
    }
    struct Row;
    float* row = thread_scratch<float, Row>(acts.channels());
    fill(t, row);
    quantize_row(acts, t, row);
  });
}

void CpuBackend::quantize_row(CpuActivations& acts, int64_t t, const float* values) {
  const ActLayout& layout = acts.layout;
  int8_t* codes = acts.codes.data() + t * layout.code_stride;
  const int64_t sums_in_group = layout.group / layout.sum_group;
  const bool e4m3 = acts.format().act.scales == GroupScales::kE4M3;
  const float unit = e4m3 ? numerics::scale_unit(kernels_.absmax(values, layout.body)) : 0.0f;
  for (int64_t g = 0; g < layout.groups; ++g) {
    acts.scales[t * layout.groups + g] = kernels_.quantize_group(
        {.x = values + g * layout.group,
         .n = layout.group,
         .format = &acts.format().act,
         .unit = unit,
         .sum_group = layout.sum_group,
         .codes = codes + g * layout.group,
         .sums = acts.sums.data() + t * layout.sum_groups + g * sums_in_group});
  }
  if (layout.int_outliers) {
    acts.outlier_scales[t] = kernels_.quantize_group({.x = values + layout.body,
                                                      .n = layout.outliers,
                                                      .format = &numerics::kOutlierActs,
                                                      .sum_group = layout.outliers,
                                                      .codes = codes + layout.outlier_offset,
                                                      .sums = acts.outlier_sums.data() + t});
  } else {
    std::copy_n(values + layout.body, layout.outliers,
                acts.values.data() + t * layout.value_stride);
  }
}

void CpuBackend::dequantize_row(const CpuActivations& acts, int64_t t, float* to) const {
  const ActLayout& layout = acts.layout;
  if (!layout.quantized) {
    std::copy_n(acts.value_row(t), acts.channels(), to);
    return;
  }
  const int8_t* codes = acts.codes.data() + t * layout.code_stride;
  for (int64_t g = 0; g < layout.groups; ++g) {
    const float scale = acts.scales[t * layout.groups + g];
    for (int64_t k = g * layout.group; k < (g + 1) * layout.group; ++k) {
      to[k] = static_cast<float>(codes[k]) * scale;
    }
  }
  for (int64_t k = 0; k < layout.outliers; ++k) {
    to[layout.body + k] =
        layout.int_outliers
            ? static_cast<float>(codes[layout.outlier_offset + k]) * acts.outlier_scales[t]
            : acts.value_row(t)[k];
  }
}

HostActivations CpuBackend::read(const Activations& from, int64_t tokens) {
  const auto& acts = static_cast<const CpuActivations&>(from);
  const ActLayout& layout = acts.layout;
  HostActivations host;
  host.values.resize(static_cast<size_t>(tokens * acts.channels()));
  for (int64_t t = 0; t < tokens; ++t) {
    dequantize_row(acts, t, host.values.data() + t * acts.channels());
  }
  if (!layout.quantized) return host;
  for (int64_t t = 0; t < tokens; ++t) {
    const int8_t* codes = acts.codes.data() + t * layout.code_stride;
    host.codes.insert(host.codes.end(), codes, codes + layout.body);
    if (layout.int_outliers) {
      codes += layout.outlier_offset;
      host.codes.insert(host.codes.end(), codes, codes + layout.outliers);
    } else {
      host.codes.resize(host.codes.size() + static_cast<size_t>(layout.outliers));
    }
  }
  host.scales.assign(acts.scales.data(), acts.scales.data() + tokens * layout.groups);
  if (layout.int_outliers) {
    host.outlier_scales.assign(acts.outlier_scales.data(), acts.outlier_scales.data() + tokens);
  }
  return host;
}

void CpuBackend::embed(const EmbedArgs& args, Tensor& y) {
  const auto& weights = static_cast<const CpuLinear&>(*args.table);
  auto& to = static_cast<CpuTensor&>(y);
  const std::span<const int32_t> ids = resolve_ids(args, ids_);
  for_tokens(static_cast<int64_t>(ids.size()), [&](int64_t t) {
    ATOM_CHECK(ids[t] >= 0 && ids[t] < weights.rows(), "token id outside the embedding");
    weights.dequantize_row(ids[t], to.row(t));
  });
}

void CpuBackend::rmsnorm(const RmsNormArgs& args, Tensor& y) {
  const auto& x = static_cast<const CpuTensor&>(*args.x);
  auto& to = static_cast<CpuTensor&>(y);
  const auto size = static_cast<size_t>(x.cols());
  for_tokens(args.tokens, [&](int64_t t) {
    const float factor = numerics::rms_factor({x.row(t), size}, args.eps);
    kernels_.normalize(x.row(t), args.weight.data(), factor, nullptr, x.cols(), to.row(t));
  });
}

void CpuBackend::rmsnorm_quantize(const RmsNormArgs& args, std::span<const int32_t> perm,
                                  Activations& y) {
  const auto& x = static_cast<const CpuTensor&>(*args.x);
  const auto size = static_cast<size_t>(x.cols());
  quantize_rows(args.tokens, y, [&](int64_t t, float* row) {
    const float factor = numerics::rms_factor({x.row(t), size}, args.eps);
    kernels_.normalize(x.row(t), args.weight.data(), factor, perm_or_null(perm), x.cols(), row);
  });
}

void CpuBackend::quantize(const Tensor& x, int64_t tokens, std::span<const int32_t> perm,
                          Activations& y) {
  const auto& from = static_cast<const CpuTensor&>(x);
  quantize_rows(tokens, y, [&](int64_t t, float* row) {
    kernels_.gather(from.row(t), perm_or_null(perm), y.channels(), row);
  });
}

void CpuBackend::silu_mul_quantize(const SiluMulArgs& args, Activations& y) {
  const auto& from = static_cast<const CpuTensor&>(*args.gate_up);
  const int64_t size = from.cols() / 2;
  quantize_rows(args.tokens, y, [&](int64_t t, float* row) {
    kernels_.silu_mul(from.row(t), from.row(t) + size, size, row);
  });
}

void CpuBackend::integer_linear(const LinearArgs& args, int64_t first) {
  const auto& w = static_cast<const CpuLinear&>(*args.w);
  const auto& x = static_cast<const CpuActivations&>(*args.x);
  auto& y = static_cast<CpuTensor&>(*args.y);
  LinearJob job;
  job.codes = w.codes.data();
  job.panel_bytes = w.panel_bytes;
  job.storage = w.storage;
  job.two_level = w.two_level();
  job.zero_point = w.zero_point;
  job.group = w.group;
  job.groups = w.groups;
  job.scales = w.scales.data();
  job.group_scales = w.group_scales.data();
  job.group_zeros = w.group_zeros.data();
  job.row_scales = w.row_scales.data();
  job.outlier_codes = w.outlier_codes.data();
  job.outlier_steps = w.outlier_steps;
  job.outlier_scales = w.outlier_scales.data();
  job.bias = w.bias.data();
  job.rows = w.rows();
  job.acts = at_row(x.codes, first, x.layout.code_stride);
  job.act_stride = x.layout.code_stride;
  job.act_outlier_offset = x.layout.outlier_offset;
  job.act_scales = at_row(x.scales, first, x.layout.groups);
  job.act_groups = x.layout.groups;
  job.act_sums = at_row(x.sums, first, x.layout.sum_groups);
  job.act_outlier_scales = at_row(x.outlier_scales, first, 1);
  job.act_outlier_sums = at_row(x.outlier_sums, first, 1);
  job.y = y.row(first);
  job.y_stride = y.cols();
  job.accumulate = args.accumulate;
  constexpr int64_t kPanelsAtOnce = 4, kTokensAtOnce = 512;
  const int64_t scratch_bytes =
      kernels_.linear_scratch_bytes == nullptr ? 0 : kernels_.linear_scratch_bytes(job);
  const int64_t panel_tiles = (w.panels() + kPanelsAtOnce - 1) / kPanelsAtOnce;
  const int64_t token_tiles = (args.tokens + kTokensAtOnce - 1) / kTokensAtOnce;
  parallel_for(panel_tiles * token_tiles, [&](int64_t i) {
    const int64_t panel = i / token_tiles * kPanelsAtOnce, token = i % token_tiles * kTokensAtOnce;
    struct Panels;
    uint8_t* scratch = thread_scratch<uint8_t, Panels>(kPanelsAtOnce * scratch_bytes);
    kernels_.linear(job, panel, std::min(panel + kPanelsAtOnce, w.panels()), token,
                    std::min(token + kTokensAtOnce, args.tokens), scratch);
  });
}

// y (+)= the product of the float channels: all of a float format's from first_channel = 0 on, or
// the float outliers. x: [T, K - first_channel]; y's rows from `first` on.
void CpuBackend::float_product(const LinearArgs& args, int64_t first, const float* x,
                               int64_t first_channel) {
  const auto& w = static_cast<const CpuLinear&>(*args.w);
  auto& y = static_cast<CpuTensor&>(*args.y);
  const WeightFormat& format = w.format().weight;
  const int64_t channels = w.cols() - first_channel;
  const FloatProduct product = {.x = x,
                                .x_stride = channels,
                                .y = y.row(first),
                                .y_stride = y.cols(),
                                .tokens = args.tokens,
                                .rows = w.rows(),
                                .channels = channels,
                                .accumulate = args.accumulate || first_channel > 0};
  const bool half = format.kind == WeightKind::kFloat && format.dtype == DType::kF16;
  const bool brain = format.kind == WeightKind::kFloat && format.dtype == DType::kBF16;
  float_linear(kernels_, product, [&](int64_t row, int64_t count, float* to) -> const float* {
    if (!w.values.empty()) return w.values.data() + row * channels;
    if (first_channel > 0) {
      kernels_.expand_f16(w.outlier_values.data() + row * channels, count * channels, to);
    } else if (half) {
      kernels_.expand_f16(w.values16.data() + row * channels, count * channels, to);
    } else if (brain) {
      kernels_.expand_bf16(w.values16.data() + row * channels, count * channels, to);
    } else {
      for (int64_t i = 0; i < count; ++i) w.dequantize_row(row + i, to + i * channels);
    }
    return to;
  });
  if (first_channel > 0 || w.bias.empty()) return;
  for_tokens(args.tokens, [&](int64_t t) {
    for (int64_t n = 0; n < w.rows(); ++n) y.row(first + t)[n] += w.bias[n];
  });
}

void CpuBackend::linear_rows(const LinearArgs& args, int64_t first) {
  const LinearFormat& format = args.w->format();
  const auto& x = static_cast<const CpuActivations&>(*args.x);
  ATOM_CHECK(readable(x.format(), format) && args.w->cols() == x.channels() &&
                 args.w->rows() == args.y->cols() && first + args.tokens <= args.y->rows() &&
                 first + args.tokens <= x.max_tokens(),
             "linear: operands do not fit together");
  if (!format.act.quantized) return float_product(args, first, x.value_row(first), 0);
  if (format.weight.kind == WeightKind::kFloat) {
    if (floats_.size() < args.tokens * x.channels() &&
        !floats_.allocate(args.tokens * x.channels())) {
      ATOM_CHECK(false, "no memory for dequantized activations");
    }
    for_tokens(args.tokens,
               [&](int64_t t) { dequantize_row(x, first + t, floats_.data() + t * x.channels()); });
    return float_product(args, first, floats_.data(), 0);
  }
  integer_linear(args, first);
  if (format.weight.outlier_kind == OutlierKind::kFloat) {
    float_product(args, first, x.value_row(first), args.w->cols() - format.weight.outliers);
  }
}

void CpuBackend::route(const Tensor& scores, int64_t tokens, Routing& routing) {
  const auto& from = static_cast<const CpuTensor&>(scores);
  ATOM_CHECK(tokens <= from.rows() && from.cols() == routing.experts(), "route: shape of scores");
  static_cast<RoutingTable&>(routing).route(
      {from.row(0), static_cast<size_t>(tokens * from.cols())}, tokens);
}

void CpuBackend::gather_routed(const Activations& x, const Routing& routing, int64_t tokens,
                               Activations& y) {
  const auto& from = static_cast<const CpuActivations&>(x);
  auto& to = static_cast<CpuActivations&>(y);
  const std::vector<int32_t>& sources = routed(routing, tokens).tokens;
  const auto rows = static_cast<int64_t>(sources.size());
  ATOM_CHECK(x.format() == y.format() && x.channels() == y.channels() && tokens <= x.max_tokens() &&
                 rows <= y.max_tokens(),
             "gather_routed: operands do not fit together");
  for_tokens(rows, [&](int64_t i) { to.copy_row(i, from, sources[static_cast<size_t>(i)]); });
}

// Expert after expert, each as a linear of its rows alone: all threads share its panels, and an
// expert that no token chose is not read at all.
void CpuBackend::grouped_linear(const GroupedLinearArgs& args) {
  const std::vector<int32_t>& offsets = routed(*args.routing, args.tokens).offsets;
  ATOM_CHECK(args.w.size() + 1 == offsets.size(), "grouped_linear: a linear for each expert");
  for (size_t e = 0; e < args.w.size(); ++e) {
    const int64_t rows = offsets[e + 1] - offsets[e];
    if (rows == 0) continue;
    linear_rows({.x = args.x, .w = args.w[e].get(), .y = args.y, .tokens = rows}, offsets[e]);
  }
}

void CpuBackend::combine(const Tensor& x, const Routing& routing, int64_t tokens, Tensor& y) {
  const auto& from = static_cast<const CpuTensor&>(x);
  auto& to = static_cast<CpuTensor&>(y);
  const HostRouting& table = routed(routing, tokens);
  const int64_t active = routing.active();
  ATOM_CHECK(tokens * active <= x.rows() && tokens <= y.rows() && x.cols() == y.cols(),
             "combine: operands do not fit together");
  for_tokens(tokens, [&](int64_t t) {
    float* row = to.row(t);
    for (int64_t i = t * active; i < (t + 1) * active; ++i) {
      const float weight = table.weights[static_cast<size_t>(i)];
      const float* part = from.row(table.rows[static_cast<size_t>(i)]);
      for (int64_t c = 0; c < y.cols(); ++c) row[c] += weight * part[c];
    }
  });
}

void CpuBackend::choose_tokens(const Tensor& x, int64_t rows, std::span<const TokenDraw> draws,
                               TokenIds& y) {
  ATOM_CHECK(rows <= x.rows() && rows <= y.size(), "choose_tokens: more rows than there are");
  chooser_.choose({static_cast<const CpuTensor&>(x).row(0), static_cast<size_t>(rows * x.cols())},
                  draws,
                  std::span(static_cast<HostTokenIds&>(y).ids).first(static_cast<size_t>(rows)));
}

void CpuBackend::gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& y) {
  const auto& from = static_cast<const CpuTensor&>(x);
  auto& to = static_cast<CpuTensor&>(y);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(from.row(rows[i]), x.cols(), to.row(static_cast<int64_t>(i)));
  }
}

void CpuBackend::dequantize(const Activations& x, int64_t tokens, Tensor& y) {
  const auto& acts = static_cast<const CpuActivations&>(x);
  auto& to = static_cast<CpuTensor&>(y);
  for_tokens(tokens, [&](int64_t t) { dequantize_row(acts, t, to.row(t)); });
}

void CpuBackend::accumulate_gram(const Tensor& x, int64_t tokens, Tensor& h) {
  cpu::accumulate_gram(static_cast<const CpuTensor&>(x).row(0), tokens, x.cols(),
                       static_cast<CpuTensor&>(h).row(0));
}

}  // namespace
}  // namespace cpu

Result<std::unique_ptr<Backend>> make_cpu_backend(const CpuOptions& options) {
  const cpu::Kernels* kernels = cpu::select_kernels(options.isa);
  if (kernels == nullptr) {
    return error(ErrorCode::kUnsupported, "this machine lacks the instructions of '{}'",
                 cpu_isa_name(options.isa));
  }
  return std::unique_ptr<Backend>(new cpu::CpuBackend(*kernels));
}

}  // namespace atom
