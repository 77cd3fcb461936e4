// The interface between the model and the machine: the fused operators of a quantized decoder layer
// and the objects they work on, which a backend keeps in its own memory and layout.
//
//   x [T, D] float residual, original channel order
//   | rmsnorm_quantize   norm, gather by perm (outliers last), quantize      -> Activations
//   |- linear qkv        integer GEMM, dequantized once a group              -> [T, (H+2KH)*DH]
//   | rope_append_kv     q/k norm, RoPE, K and V into INT4 pages             -> q [T, H*DH]
//   | paged_attention    past and new tokens alike read from pages           -> [T, H*DH]
//   | quantize           gather by o_proj's perm, quantize                   -> Activations
//   |- linear o          adds into x
//   | rmsnorm_quantize
//   |- linear gate_up    rows already in down_proj's channel order           -> [T, 2F]
//   | silu_mul_quantize  silu(gate) * up, quantize                           -> Activations
//   or, where the backend gates in the linear (LinearWeights::gated):
//   |- linear gate_up    silu(gate) * up                                     -> [T, F]
//   | quantize                                                               -> Activations
//   |- linear down       adds into x
//
// Where a mixture of experts stands in place of the last four, each token goes through A of E
// experts: its row becomes A routed rows, and routed rows stand expert after expert.
//
//   | rmsnorm_quantize   to floats; linear router                            -> scores [T, E]
//   | route              the A largest scores of a token and their softmax   -> Routing
//   | rmsnorm_quantize   for the experts, then gather_routed                 -> [T A] Activations
//   |- grouped_linear    gate_up, each expert for its rows                   -> [T A, 2F]
//   | silu_mul_quantize
//   |- grouped_linear    down, each expert for its rows                      -> [T A, D]
//   | combine            a token's A rows, weighted, added into x
//
// Integer results (codes, integer sums) are bit-identical on every backend for the same operator
// input; docs/quantization.md gives the float expressions before each rounding, step by step, so
// that they are too. What follows the integer sums is held to tolerances against the ref backend.
// One object of each kind is used by one thread at a time; weights are read-only and shareable.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/memory.h"
#include "base/status.h"
#include "ops/batch.h"
#include "tensor/formats.h"
#include "tensor/joined_rows.h"
#include "tensor/packed_linear.h"

namespace atom {

// How precisely a tensor keeps its elements.
enum class Precision : uint8_t {
  kFull,  // floats
  // Halves do as well: only linear without accumulate and grouped_linear write the tensor, and only
  // rope_append_kv (as qkv), silu_mul_quantize and quantize without perm read it. A backend may
  // store it in F16, where what is beyond 65504 becomes infinite, and 65504 where the linear is a
  // gated one; operators then see the rounded numbers.
  kHalf,
};

// A dense row-major matrix in the backend's memory. CPU backends use kF32 throughout.
class Tensor {
 public:
  virtual ~Tensor() = default;
  virtual int64_t rows() const = 0;  // as many as were asked for at creation
  virtual int64_t cols() const = 0;
  virtual DType dtype() const = 0;
};

// The input of linears: quantized codes in permuted channel order with their scales, or floats.
class Activations {
 public:
  virtual ~Activations() = default;
  virtual const LinearFormat& format() const = 0;
  virtual int64_t max_tokens() const = 0;
  virtual int64_t channels() const = 0;
};

// A linear's weights in a backend's kernel layout.
class LinearWeights {
 public:
  virtual ~LinearWeights() = default;
  virtual const LinearFormat& format() const = 0;
  virtual int64_t rows() const = 0;   // N
  virtual int64_t cols() const = 0;   // K
  virtual int64_t bytes() const = 0;  // resident
  // Whether linears yield silu(gate) * up, see Backend::load_gate_up.
  virtual bool gated() const { return false; }
};

// Which experts the tokens of a batch go through, in the backend's memory. Nothing between route()
// and combine() needs it on the host.
class Routing {
 public:
  virtual ~Routing() = default;
  virtual int64_t experts() const = 0;     // E
  virtual int64_t active() const = 0;      // A of them for each token
  virtual int64_t max_tokens() const = 0;  // T
};

// A routing brought to the host, for tests and for the quantizer.
struct HostRouting {
  std::vector<int32_t> offsets;  // [E + 1]: expert e has routed rows [offsets[e], offsets[e + 1])
  std::vector<int32_t> tokens;   // [T A]: the token of each routed row; ascending for one expert
  std::vector<int32_t> rows;     // [T, A]: where a token's rows stand, the best expert's first
  std::vector<float> weights;    // [T, A]
};

// Token ids in the backend's memory.
class TokenIds {
 public:
  virtual ~TokenIds() = default;
  virtual int64_t size() const = 0;
};

// What a step leaves on the host, see StepReading.
struct StepOutput {
  std::span<const int32_t> chosen = {};  // [R] the token chosen from each row; empty if W = R
  std::span<float> logits = {};          // [W, V] the first W rows, which the caller may overwrite
  double seconds = 0;                    // from the step's first operator to its last one
};

// Takes a step's output on its way to the host.
class StepReadback {
 public:
  virtual ~StepReadback() = default;
  // Waits for the last step that was given this readback. The output is there until the next step
  // with it, on a backend that is not asynchronous until the next step with these logits.
  virtual StepOutput wait() = 0;
};

struct KvCacheShape {
  int64_t layers = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t pages = 0;  // of kPageTokens tokens each
  KvFormat format = {};
  int64_t prefix_tokens = 0;  // constant tokens in front of every sequence, kept in floats
};

// Bytes one page takes (all layers, K and V, codes and scales).
int64_t page_bytes(const KvCacheShape& shape);

class KvCache {
 public:
  virtual ~KvCache() = default;
  virtual const KvCacheShape& shape() const = 0;
  // Stores the prefix's keys and values of one layer, [prefix_tokens, KH, DH] each, in the form
  // that attention reads: K after RoPE, minus the mean and rotated where the format says so (before
  // RoPE for pre_rope formats); V as it leaves v_proj.
  virtual void set_prefix(int64_t layer, std::span<const float> k, std::span<const float> v) = 0;
};

// Quantized activations brought to the host, for tests and for the quantizer's reports.
struct HostActivations {
  std::vector<int8_t> codes;          // [T, K] (0 for float outliers), empty for float formats
  std::vector<float> scales;          // [T, groups]
  std::vector<float> outlier_scales;  // [T] when outliers are INT8
  std::vector<float> values;          // [T, K] what the codes stand for (float formats: the values)
};

// An embedding is a linear whose rows are looked up.
struct EmbedArgs {
  const LinearWeights* table = nullptr;  // [V, D]
  std::span<const int32_t> ids = {};     // [T]
  const TokenIds* earlier = nullptr;     // id -1 - r stands for its id r; null: there is none such
};

struct RmsNormArgs {
  const Tensor* x = nullptr;      // [>=T, D]
  std::span<const float> weight;  // [D]; a host array that the backend may cache by address
  float eps = 1e-5f;
  int64_t tokens = 0;  // T
};

struct SiluMulArgs {
  const Tensor* gate_up = nullptr;  // [>=T, 2F]: gate in columns [0, F), up in [F, 2F)
  int64_t tokens = 0;
};

struct LinearArgs {
  const Activations* x = nullptr;
  const LinearWeights* w = nullptr;
  Tensor* y = nullptr;  // [>=T, N]; where w is gated [>=T, N / 2] of Precision::kHalf
  int64_t tokens = 0;
  bool accumulate = false;  // y += instead of y =; not where w is gated
};

struct GroupedLinearArgs {
  const Activations* x = nullptr;                                // [>=T A, K]
  std::span<const std::unique_ptr<const LinearWeights>> w = {};  // [E] of one format and shape
  const Routing* routing = nullptr;
  Tensor* y = nullptr;  // [>=T A, N]; where w are gated [>=T A, N / 2] of Precision::kHalf
  int64_t tokens = 0;   // T
};

struct RopeAppendArgs {
  int64_t layer = 0;
  const Batch* batch = nullptr;
  const Tensor* qkv = nullptr;  // [T, (H + 2 KH) * DH]: q heads, k heads, v heads
  Tensor* q = nullptr;          // [T, H * DH]: out, after norm, RoPE and Hadamard
  int64_t heads = 0;            // H; KH and DH are the cache's
  std::span<const float>
      cos_sin;             // [positions, R/2, 2], R = rotary_dim: cos then sin of each rotated pair
                           // (i, i + R/2), any attention scaling of the RoPE variant multiplied in
  int64_t rotary_dim = 0;  // leading channels of a head that rotate (DH unless partial)
  std::span<const float> q_norm = {};  // [DH] RMSNorm weight a head (qwen3), or empty
  std::span<const float> k_norm = {};  // [DH], or empty
  float norm_eps = 1e-6f;
  std::span<const float> k_mean = {};  // [KH * DH] constant mean after RoPE (centered), or empty
  KvCache* cache = nullptr;
};

struct AttentionArgs {
  int64_t layer = 0;
  const Batch* batch = nullptr;
  const Tensor* q = nullptr;  // [T, H * DH] from rope_append_kv
  Tensor* out = nullptr;      // [T, H * DH]
  int64_t heads = 0;
  float scale = 0.0f;                   // usually DH^-0.5
  int64_t window = 0;                   // tokens a query sees back, itself included, prefix tokens
                                        // counted like others; 0: all
  std::span<const float> cos_sin = {};  // for pre_rope caches: applied to K by its position
  int64_t rotary_dim = 0;
  const KvCache* cache = nullptr;
};

class DeviceQuantizer;  // ops/device_quantizer.h

// What the host gets of a step's logits [R, V]: those of the first W rows, and the token chosen
// from each row (Backend::choose_tokens), which takes far less time to copy.
struct StepReading {
  StepReadback* to = nullptr;  // null: nothing
  int64_t whole_rows = 0;      // W
  TokenIds* chosen = nullptr;  // [>=R], where W < R: receives the rows' tokens
};

// One forward pass, see Backend::run_step.
struct StepArgs {
  const Batch* batch = nullptr;
  const KvCache* cache = nullptr;
  const Tensor* state = nullptr;  // of whoever runs it: one that no other keeps
  Tensor* logits = nullptr;       // null: the step makes none
  StepReading reading = {};
};

// The memory that a backend's objects live in, as it stands.
struct BackendMemory {
  int64_t free_bytes = 0;  // 0: not known
  bool own = false;        // the device's own; else the host's, shared with all its programs
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;  // "cpu"
  virtual std::string detail() const = 0;     // "cpu avx512-vnni, 2 threads"
  virtual BackendMemory memory() const { return {.free_bytes = available_memory_bytes()}; }
  // True: operators are queued, in order, and return before they have run. Host access and
  // StepReadback::wait wait for them.
  virtual bool asynchronous() const { return false; }

  // --- objects. Formats were validated by the caller (tensor/formats.h).
  virtual Result<std::unique_ptr<Tensor>> make_tensor(int64_t rows, int64_t cols,
                                                      Precision precision = Precision::kFull) = 0;
  // format: of the linears that will read them.
  virtual Result<std::unique_ptr<Activations>> make_activations(const LinearFormat& format,
                                                                int64_t channels,
                                                                int64_t max_tokens) = 0;
  virtual Result<std::unique_ptr<LinearWeights>> load_linear(const PackedLinear& packed) = 0;
  // The rows of several linears of one format and K in one, one part after another.
  virtual Result<std::unique_ptr<LinearWeights>> load_fused(
      std::span<const PackedLinear* const> parts) {
    return load_linear(JoinedRows(parts).join());
  }
  // gate_proj's and up_proj's rows in one, [F, K] each, of one format. A backend that can compute
  // silu(gate) * up [T, F] in the linear, without rounding gate and up, returns gated weights, and
  // it does so for all linears of one format and shape. Others: gate's rows, then up's.
  virtual Result<std::unique_ptr<LinearWeights>> load_gate_up(const PackedLinear& gate,
                                                              const PackedLinear& up) {
    const PackedLinear* parts[] = {&gate, &up};
    return load_fused(parts);
  }
  virtual Result<std::unique_ptr<KvCache>> make_kv_cache(const KvCacheShape& shape) = 0;
  // REQUIRES: 1 <= active <= experts.
  virtual Result<std::unique_ptr<Routing>> make_routing(int64_t experts, int64_t active,
                                                        int64_t max_tokens) = 0;
  virtual Result<std::unique_ptr<TokenIds>> make_token_ids(int64_t size) = 0;
  // rows, vocab: of the largest logits.
  virtual Result<std::unique_ptr<StepReadback>> make_readback(int64_t rows, int64_t vocab) = 0;

  // --- host access (synchronous). rows: how many leading rows to copy.
  virtual void write(Tensor& to, std::span<const float> from) = 0;
  virtual void read(const Tensor& from, int64_t rows, std::span<float> to) = 0;
  virtual HostActivations read(const Activations& from, int64_t tokens) = 0;
  virtual HostRouting read(const Routing& from, int64_t tokens) = 0;
  virtual std::vector<int32_t> read(const TokenIds& from, int64_t count) = 0;

  // Runs `operators`, which calls operators and does nothing else: for the same cache, state,
  // logits and reading.chosen, and with as little or as much to read, the same operators with the
  // same arguments, but for the contents of a batch of so many tokens, sequences, logit rows and
  // draws. A
  // backend may therefore record the operators of a step and replay the record, without calling
  // `operators`, when such a batch comes again. Then starts to bring args.reading to the host.
  virtual void run_step(const StepArgs& args, const std::function<void()>& operators) = 0;

  // --- operators. perm: [K] source channel of each permuted channel, or empty for identity; a host
  // array that stays alive and unchanged, like every span in the args.
  // y[t] = row ids[t] of the table.
  virtual void embed(const EmbedArgs& args, Tensor& y) = 0;
  virtual void rmsnorm(const RmsNormArgs& args, Tensor& y) = 0;
  virtual void rmsnorm_quantize(const RmsNormArgs& args, std::span<const int32_t> perm,
                                Activations& y) = 0;
  virtual void quantize(const Tensor& x, int64_t tokens, std::span<const int32_t> perm,
                        Activations& y) = 0;
  virtual void silu_mul_quantize(const SiluMulArgs& args, Activations& y) = 0;
  virtual void linear(const LinearArgs& args) = 0;
  // Sends each token to the experts of its largest scores [>=T, E], of equal ones to the first,
  // with weights that are the softmax over these scores alone. A NaN is below every number.
  virtual void route(const Tensor& scores, int64_t tokens, Routing& routing) = 0;
  // y's routed row i = x's row of that row's token; formats are equal.
  virtual void gather_routed(const Activations& x, const Routing& routing, int64_t tokens,
                             Activations& y) = 0;
  // y[i] = w[e] x[i] for the routed rows i of each expert e.
  virtual void grouped_linear(const GroupedLinearArgs& args) = 0;
  // y[t] += the sum of x's routed rows of token t, times their weights, the best expert's first.
  virtual void combine(const Tensor& x, const Routing& routing, int64_t tokens, Tensor& y) = 0;
  virtual void rope_append_kv(const RopeAppendArgs& args) = 0;
  virtual void paged_attention(const AttentionArgs& args) = 0;
  // y[i] = the token chosen from the logits x[i]: as draws[i] has it (ops/draw.h), or, without
  // draws, the argmax (ops/argmax.h).
  virtual void choose_tokens(const Tensor& x, int64_t rows, std::span<const TokenDraw> draws,
                             TokenIds& y) = 0;
  // y[i] = x[rows[i]].
  virtual void gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& y) = 0;
  // What quantized activations stand for, [T, K] in permuted channel order, as floats.
  virtual void dequantize(const Activations& x, int64_t tokens, Tensor& y) = 0;
  // h += X^T X over the first `tokens` rows of x [T, K]; h [K, K], both triangles. The order of
  // summation over tokens is fixed, whatever the number of threads.
  virtual void accumulate_gram(const Tensor& x, int64_t tokens, Tensor& h) = 0;

  // What this backend does for the quantizer in its own memory; null: nothing.
  virtual DeviceQuantizer* device_quantizer() { return nullptr; }
};

}  // namespace atom
