#include "backend/ref/ref_backend.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <vector>

#include "backend/ref/ref_attention.h"
#include "backend/ref/ref_choose.h"
#include "backend/ref/ref_objects.h"
#include "base/parallel.h"
#include "ops/host_step.h"
#include "ops/numerics.h"
#include "ops/routing.h"

namespace atom {
namespace ref {
namespace {

RefTensor& cast(Tensor& tensor) { return static_cast<RefTensor&>(tensor); }
const RefTensor& cast(const Tensor& tensor) { return static_cast<const RefTensor&>(tensor); }
RefActivations& cast(Activations& acts) { return static_cast<RefActivations&>(acts); }
const RefActivations& cast(const Activations& acts) {
  return static_cast<const RefActivations&>(acts);
}
const RefLinear& cast(const LinearWeights& w) { return static_cast<const RefLinear&>(w); }
RoutingTable& cast(Routing& routing) { return static_cast<RoutingTable&>(routing); }
const RoutingTable& cast(const Routing& routing) {
  return static_cast<const RoutingTable&>(routing);
}

// Makes an object whose constructor allocates all that it will ever hold.
template <class Object, class Base, class... Args>
Result<std::unique_ptr<Base>> make_object(const char* what, Args&&... args) {
  try {
    return std::unique_ptr<Base>(std::make_unique<Object>(std::forward<Args>(args)...));
  } catch (const std::exception&) {  // bad_alloc, or length_error for absurd sizes
    return error(ErrorCode::kOutOfMemory, "{}: not enough memory", what);
  }
}

Status check_product(const char* what, std::initializer_list<int64_t> factors) {
  int64_t product = 8;  // bytes of a double
  for (const int64_t factor : factors) {
    if (factor < 0 || __builtin_mul_overflow(product, factor, &product)) {
      return error(ErrorCode::kInvalidArgument, "{}: size {} is negative or too large", what,
                   factor);
    }
  }
  return {};
}

std::vector<float> gather(std::span<const float> x, std::span<const int32_t> perm) {
  if (perm.empty()) return {x.begin(), x.end()};
  std::vector<float> y(perm.size());
  for (size_t k = 0; k < perm.size(); ++k) y[k] = x[static_cast<size_t>(perm[k])];
  return y;
}

class RefBackend final : public Backend {
 public:
  std::string_view name() const override { return "ref"; }
  std::string detail() const override { return "ref double"; }

  Result<std::unique_ptr<Tensor>> make_tensor(int64_t rows, int64_t cols,
                                              Precision /*precision*/) override {
    ATOM_TRY(check_product("tensor", {rows, cols}));
    return make_object<RefTensor, Tensor>("tensor", rows, cols);
  }
  Result<std::unique_ptr<Activations>> make_activations(const LinearFormat& format,
                                                        int64_t channels,
                                                        int64_t max_tokens) override {
    ATOM_TRY(check_product("activations", {channels, max_tokens}));
    return make_object<RefActivations, Activations>("activations", format, channels, max_tokens);
  }
  Result<std::unique_ptr<LinearWeights>> load_linear(const PackedLinear& packed) override {
    ATOM_TRY(check_product("linear", {packed.rows, packed.cols}));
    return make_object<RefLinear, LinearWeights>("linear", packed);
  }
  Result<std::unique_ptr<KvCache>> make_kv_cache(const KvCacheShape& shape) override {
    ATOM_TRY(validate(shape.format, shape.head_dim));
    ATOM_TRY(check_product(
        "KV cache", {2, shape.layers, shape.pages, kPageTokens, shape.kv_heads, shape.head_dim}));
    ATOM_TRY(check_product("KV prefix",
                           {2, shape.layers, shape.prefix_tokens, shape.kv_heads, shape.head_dim}));
    return make_object<RefKvCache, KvCache>("KV cache", shape);
  }
  Result<std::unique_ptr<Routing>> make_routing(int64_t experts, int64_t active,
                                                int64_t max_tokens) override {
    ATOM_TRY(check_product("routing", {active, max_tokens}));
    return make_object<RoutingTable, Routing>("routing", experts, active, max_tokens);
  }
  Result<std::unique_ptr<TokenIds>> make_token_ids(int64_t size) override {
    ATOM_TRY(check_product("token ids", {size}));
    return make_object<HostTokenIds, TokenIds>("token ids", size);
  }
  Result<std::unique_ptr<StepReadback>> make_readback(int64_t, int64_t) override {
    return make_object<HostReadback, StepReadback>("readback");
  }

  void run_step(const StepArgs& args, const std::function<void()>& operators) override {
    run_host_step(args, operators,
                  args.logits == nullptr ? nullptr : cast(*args.logits).all().data());
  }

  void write(Tensor& to, std::span<const float> from) override {
    ATOM_CHECK(from.size() <= cast(to).all().size(), "more values than the tensor holds");
    std::ranges::copy(from, cast(to).all().begin());
  }
  void read(const Tensor& from, int64_t rows, std::span<float> to) override {
    ATOM_CHECK(rows <= from.rows() && static_cast<int64_t>(to.size()) == rows * from.cols(),
               "wrong number of values");
    std::copy_n(cast(from).all().begin(), to.size(), to.begin());
  }
  HostActivations read(const Activations& from, int64_t tokens) override {
    ATOM_CHECK(tokens <= from.max_tokens(), "more tokens than there are");
    return cast(from).to_host(tokens);
  }
  HostRouting read(const Routing& from, int64_t tokens) override {
    ATOM_CHECK(tokens == cast(from).tokens(), "not the tokens that were routed");
    return cast(from).table();
  }
  std::vector<int32_t> read(const TokenIds& from, int64_t count) override {
    ATOM_CHECK(count <= from.size(), "more ids than there are");
    const auto& ids = static_cast<const HostTokenIds&>(from).ids;
    return {ids.begin(), ids.begin() + count};
  }

  void embed(const EmbedArgs& args, Tensor& y) override {
    const LinearWeights& table = *args.table;
    std::vector<int32_t> memory;
    const std::span<const int32_t> ids = resolve_ids(args, memory);
    ATOM_CHECK(static_cast<int64_t>(ids.size()) <= y.rows() && y.cols() == table.cols(),
               "embed: y has the wrong shape");
    for (size_t t = 0; t < ids.size(); ++t) {
      ATOM_CHECK(ids[t] >= 0 && ids[t] < table.rows(), "embed: id out of range");
      std::ranges::copy(cast(table).row(ids[t]), cast(y).row(static_cast<int64_t>(t)).begin());
    }
  }

  void rmsnorm(const RmsNormArgs& args, Tensor& y) override {
    check_norm(args);
    ATOM_CHECK(args.tokens <= y.rows() && y.cols() == args.x->cols(), "rmsnorm: shape of y");
    for (int64_t t = 0; t < args.tokens; ++t) {
      const std::span<const float> x = cast(*args.x).row(t);
      double sum = 0;
      for (const double v : x) sum += v * v;
      const double factor = 1.0 / std::sqrt(sum / static_cast<double>(x.size()) + args.eps);
      const std::span<float> to = cast(y).row(t);
      for (size_t i = 0; i < x.size(); ++i) {
        to[i] = static_cast<float>(x[i] * factor * args.weight[i]);
      }
    }
  }

  void rmsnorm_quantize(const RmsNormArgs& args, std::span<const int32_t> perm,
                        Activations& y) override {
    check_norm(args);
    check_gather(args.x->cols(), args.tokens, perm, y);
    for (int64_t t = 0; t < args.tokens; ++t) {
      const std::span<const float> x = cast(*args.x).row(t);
      const float factor = numerics::rms_factor(x, args.eps);
      std::vector<float> normed(x.size());
      for (size_t i = 0; i < x.size(); ++i) normed[i] = x[i] * factor * args.weight[i];
      cast(y).store(t, gather(normed, perm));
    }
  }

  void quantize(const Tensor& x, int64_t tokens, std::span<const int32_t> perm,
                Activations& y) override {
    ATOM_CHECK(tokens <= x.rows(), "quantize: more tokens than rows");
    check_gather(x.cols(), tokens, perm, y);
    for (int64_t t = 0; t < tokens; ++t) cast(y).store(t, gather(cast(x).row(t), perm));
  }

  void silu_mul_quantize(const SiluMulArgs& args, Activations& y) override {
    const int64_t channels = y.channels();
    ATOM_CHECK(args.tokens <= args.gate_up->rows() && args.gate_up->cols() == 2 * channels,
               "silu_mul_quantize: gate_up has the wrong shape");
    ATOM_CHECK(args.tokens <= y.max_tokens(), "silu_mul_quantize: more tokens than y holds");
    std::vector<float> product(static_cast<size_t>(channels));
    for (int64_t t = 0; t < args.tokens; ++t) {
      const std::span<const float> gate = cast(*args.gate_up).row(t);
      const std::span<const float> up = gate.subspan(product.size());
      for (size_t i = 0; i < product.size(); ++i) {
        product[i] = numerics::silu_mul(gate[i], up[i]);
      }
      cast(y).store(t, product);
    }
  }

  void linear(const LinearArgs& args) override { linear_rows(args, 0); }

  void route(const Tensor& scores, int64_t tokens, Routing& routing) override {
    ATOM_CHECK(tokens <= scores.rows() && scores.cols() == routing.experts(),
               "route: shape of scores");
    cast(routing).route(cast(scores).all(), tokens);
  }

  void gather_routed(const Activations& x, const Routing& routing, int64_t tokens,
                     Activations& y) override {
    check_routed(routing, tokens, y.max_tokens());
    ATOM_CHECK(x.format() == y.format() && x.channels() == y.channels(),
               "gather_routed: x and y differ");
    ATOM_CHECK(tokens <= x.max_tokens(), "gather_routed: more tokens than x holds");
    const std::vector<int32_t>& sources = cast(routing).table().tokens;
    for (size_t i = 0; i < sources.size(); ++i) {
      cast(y).copy(static_cast<int64_t>(i), cast(x), sources[i]);
    }
  }

  void grouped_linear(const GroupedLinearArgs& args) override {
    check_routed(*args.routing, args.tokens, args.y->rows());
    ATOM_CHECK(static_cast<int64_t>(args.w.size()) == args.routing->experts(),
               "grouped_linear: a linear for each expert");
    const std::vector<int32_t>& offsets = cast(*args.routing).table().offsets;
    for (size_t e = 0; e < args.w.size(); ++e) {
      const int64_t count = offsets[e + 1] - offsets[e];
      linear_rows({.x = args.x, .w = args.w[e].get(), .y = args.y, .tokens = count}, offsets[e]);
    }
  }

  void combine(const Tensor& x, const Routing& routing, int64_t tokens, Tensor& y) override {
    check_routed(routing, tokens, x.rows());
    ATOM_CHECK(tokens <= y.rows() && x.cols() == y.cols(), "combine: shape of y");
    const HostRouting& table = cast(routing).table();
    const auto active = static_cast<size_t>(routing.active());
    for (int64_t t = 0; t < tokens; ++t) {
      const std::span<float> to = cast(y).row(t);
      const size_t first = static_cast<size_t>(t) * active;
      for (size_t c = 0; c < to.size(); ++c) {
        double sum = to[c];
        for (size_t i = first; i < first + active; ++i) {
          sum += static_cast<double>(table.weights[i]) *
                 static_cast<double>(cast(x).row(table.rows[i])[c]);
        }
        to[c] = static_cast<float>(sum);
      }
    }
  }

  // A linear of rows [first, first + args.tokens).
  void linear_rows(const LinearArgs& args, int64_t first) {
    const RefLinear& w = cast(*args.w);
    const RefActivations& x = cast(*args.x);
    ATOM_CHECK(x.channels() == w.cols(), "linear: K of x and w differ");
    ATOM_CHECK(x.format().act == w.format().act, "linear: x was quantized for another format");
    ATOM_CHECK(!x.format().act.quantized ||
                   (x.format().weight.outliers == w.format().weight.outliers &&
                    x.format().weight.outlier_kind == w.format().weight.outlier_kind),
               "linear: x was quantized for other outliers");
    const int64_t end = first + args.tokens;
    ATOM_CHECK(args.y->cols() == w.rows() && end <= args.y->rows() && end <= x.max_tokens(),
               "linear: shape of y");
    parallel_for(w.rows(), [&](int64_t n) {
      const std::span<const float> row = w.row(n);
      for (int64_t t = first; t < end; ++t) {
        const std::span<const double> values = x.values(t);
        double sum = 0;
        for (size_t k = 0; k < row.size(); ++k) sum += values[k] * row[k];
        float& y = cast(*args.y).row(t)[static_cast<size_t>(n)];
        y = static_cast<float>(sum + w.bias(n) + (args.accumulate ? y : 0.0));
      }
    });
  }

  void rope_append_kv(const RopeAppendArgs& args) override {
    const KvCacheShape& shape = args.cache->shape();
    const int64_t tokens = args.batch->size();
    check_batch(*args.batch, args.layer, shape);
    ATOM_CHECK(args.qkv->rows() >= tokens &&
                   args.qkv->cols() == (args.heads + 2 * shape.kv_heads) * shape.head_dim,
               "rope_append_kv: shape of qkv");
    ATOM_CHECK(args.q->rows() >= tokens && args.q->cols() == args.heads * shape.head_dim,
               "rope_append_kv: shape of q");
    check_rotary(args.cos_sin, args.rotary_dim, *args.batch, shape);
    for (const std::span<const float> norm : {args.q_norm, args.k_norm}) {
      ATOM_CHECK(norm.empty() || static_cast<int64_t>(norm.size()) == shape.head_dim,
                 "rope_append_kv: size of a head norm");
    }
    ATOM_CHECK(static_cast<int64_t>(args.k_mean.size()) ==
                   (shape.format.centered ? shape.kv_heads * shape.head_dim : 0),
               "rope_append_kv: a mean goes with centered caches, and they with a mean");
    ref::rope_append_kv(args);
  }

  void paged_attention(const AttentionArgs& args) override {
    const KvCacheShape& shape = args.cache->shape();
    check_batch(*args.batch, args.layer, shape);
    for (const Tensor* tensor : {args.q, static_cast<const Tensor*>(args.out)}) {
      ATOM_CHECK(
          tensor->rows() >= args.batch->size() && tensor->cols() == args.heads * shape.head_dim,
          "paged_attention: shape of q or out");
    }
    ATOM_CHECK(args.heads % shape.kv_heads == 0, "paged_attention: heads a KV head");
    ATOM_CHECK(args.window >= 0, "paged_attention: negative window");
    if (shape.format.pre_rope) check_rotary(args.cos_sin, args.rotary_dim, *args.batch, shape);
    ref::paged_attention(args);
  }

  void choose_tokens(const Tensor& x, int64_t rows, std::span<const TokenDraw> draws,
                     TokenIds& y) override {
    ATOM_CHECK(rows <= x.rows() && rows <= y.size(), "choose_tokens: more rows than there are");
    ATOM_CHECK(draws.empty() || static_cast<int64_t>(draws.size()) == rows,
               "choose_tokens: a draw a row");
    for (int64_t t = 0; t < rows; ++t) {
      const auto i = static_cast<size_t>(t);
      static_cast<HostTokenIds&>(y).ids[i] =
          ref::choose_token(cast(x).row(t), draws.empty() ? TokenDraw{} : draws[i]);
    }
  }

  void gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& y) override {
    ATOM_CHECK(static_cast<int64_t>(rows.size()) <= y.rows() && x.cols() == y.cols(),
               "gather_rows: shape of y");
    for (size_t i = 0; i < rows.size(); ++i) {
      ATOM_CHECK(rows[i] >= 0 && rows[i] < x.rows(), "gather_rows: row out of range");
      std::ranges::copy(cast(x).row(rows[i]), cast(y).row(static_cast<int64_t>(i)).begin());
    }
  }

  void dequantize(const Activations& x, int64_t tokens, Tensor& y) override {
    ATOM_CHECK(tokens <= x.max_tokens() && tokens <= y.rows() && x.channels() == y.cols(),
               "dequantize: shape of y");
    for (int64_t t = 0; t < tokens; ++t) {
      const std::span<const double> values = cast(x).values(t);
      std::ranges::transform(values, cast(y).row(t).begin(),
                             [](double value) { return static_cast<float>(value); });
    }
  }

  void accumulate_gram(const Tensor& x, int64_t tokens, Tensor& h) override {
    const int64_t channels = x.cols();
    ATOM_CHECK(tokens <= x.rows() && h.rows() == channels && h.cols() == channels,
               "accumulate_gram: shape of h");
    parallel_for(channels, [&](int64_t i) {
      const std::span<float> row = cast(h).row(i);
      for (int64_t j = 0; j < channels; ++j) {
        double sum = row[static_cast<size_t>(j)];
        for (int64_t t = 0; t < tokens; ++t) {
          const std::span<const float> token = cast(x).row(t);
          sum += static_cast<double>(token[static_cast<size_t>(i)]) *
                 static_cast<double>(token[static_cast<size_t>(j)]);
        }
        row[static_cast<size_t>(j)] = static_cast<float>(sum);
      }
    });
  }

 private:
  static void check_norm(const RmsNormArgs& args) {
    ATOM_CHECK(args.tokens <= args.x->rows(), "rmsnorm: more tokens than rows");
    ATOM_CHECK(static_cast<int64_t>(args.weight.size()) == args.x->cols(),
               "rmsnorm: size of the weight");
  }
  static void check_routed(const Routing& routing, int64_t tokens, int64_t rows) {
    ATOM_CHECK(tokens == cast(routing).tokens(), "not the tokens that were routed");
    ATOM_CHECK(tokens * routing.active() <= rows, "more routed rows than there is room for");
  }
  static void check_gather(int64_t channels, int64_t tokens, std::span<const int32_t> perm,
                           const Activations& y) {
    ATOM_CHECK(tokens <= y.max_tokens(), "more tokens than the activations hold");
    ATOM_CHECK(y.channels() == channels, "activations of another width");
    ATOM_CHECK(perm.empty() || static_cast<int64_t>(perm.size()) == channels,
               "permutation of another size");
    for (const int32_t source : perm) {
      ATOM_CHECK(source >= 0 && source < channels, "permutation out of range");
    }
  }
  static void check_batch(const Batch& batch, int64_t layer, const KvCacheShape& shape) {
    ATOM_CHECK(layer >= 0 && layer < shape.layers, "no such layer");
    ATOM_CHECK(batch.positions.size() == batch.tokens.size(), "a position for every token");
    int64_t next = 0;
    for (const SequenceSlice& s : batch.sequences) {
      ATOM_CHECK(s.first_token == next && s.token_count >= 1 && s.past >= 0,
                 "sequences must cover the batch without gaps");
      next += s.token_count;
      ATOM_CHECK(static_cast<int64_t>(s.pages.size()) * kPageTokens >= s.past + s.token_count,
                 "a sequence's pages must cover its tokens");
    }
    ATOM_CHECK(next == batch.size(), "sequences must cover the batch");
  }
  static void check_rotary(std::span<const float> cos_sin, int64_t rotary_dim, const Batch& batch,
                           const KvCacheShape& shape) {
    ATOM_CHECK(rotary_dim >= 0 && rotary_dim % 2 == 0 && rotary_dim <= shape.head_dim,
               "rotary_dim must be even and at most the head dimension");
    for (const int32_t position : batch.positions) {
      ATOM_CHECK(
          position >= 0 && (position + 1) * rotary_dim <= static_cast<int64_t>(cos_sin.size()),
          "position beyond the RoPE table");
    }
  }
};

}  // namespace
}  // namespace ref

std::unique_ptr<Backend> make_ref_backend() { return std::make_unique<ref::RefBackend>(); }

}  // namespace atom
