#include "backend/cuda/cuda_backend.h"

#include <algorithm>

#include "backend/cuda/attention/operators.h"
#include "backend/cuda/device_batch.h"
#include "backend/cuda/experts/experts.h"
#include "backend/cuda/gemm/gemm.h"
#include "backend/cuda/linear/linear.h"
#include "backend/cuda/linear/linear_kernels.h"
#include "backend/cuda/linear/weight_order.h"
#include "backend/cuda/norm/rmsnorm_quantize.h"
#include "backend/cuda/objects.h"
#include "backend/cuda/quantize/device_quantizer.h"
#include "backend/cuda/runtime/host_arrays.h"
#include "backend/cuda/runtime/staging.h"
#include "backend/cuda/step_graphs.h"
#include "backend/cuda/step_readback.h"
#include "backend/cuda/vendor/split_product.h"
#include "ops/numerics.h"

namespace atom {
namespace cuda {
namespace {

template <class T>
Result<std::unique_ptr<T>> as_base(auto made) {
  if (!made.ok()) return made.status();
  return std::unique_ptr<T>(std::move(made).value());
}

ChipKernels kernels_for(const CudaOptions& options) {
  const DeviceInfo& device = device_info();
  return {.hopper = device.hopper() && !options.portable,
          .int4_mma = device.major == 8 || options.portable,
          .tcgen05 = device.major == 10 && device.minor == 0 && !options.portable};
}

class CudaBackend final : public Backend {
 public:
  static Result<std::unique_ptr<Backend>> create(const CudaOptions& options);
  ~CudaBackend() override;

  std::string_view name() const override { return "cuda"; }
  std::string detail() const override {
    return fmt::format("cuda {}{}{}", device_info().name,
                       exact_attention_ ? ", exact attention" : "",
                       options_.portable ? ", portable kernels" : "");
  }

  BackendMemory memory() const override { return {.free_bytes = device_free_bytes(), .own = true}; }
  bool asynchronous() const override { return true; }

  Result<std::unique_ptr<Tensor>> make_tensor(int64_t rows, int64_t cols,
                                              Precision precision) override {
    return as_base<Tensor>(CudaTensor::create(rows, cols, precision));
  }
  Result<std::unique_ptr<Activations>> make_activations(const LinearFormat& format,
                                                        int64_t channels,
                                                        int64_t max_tokens) override {
    return as_base<Activations>(CudaActivations::create(format, channels, max_tokens, kernels_));
  }
  Result<std::unique_ptr<LinearWeights>> load_linear(const PackedLinear& packed) override {
    return as_base<LinearWeights>(CudaLinear::create(packed, kernels_, *staging_));
  }
  Result<std::unique_ptr<LinearWeights>> load_fused(
      std::span<const PackedLinear* const> parts) override {
    return as_base<LinearWeights>(CudaLinear::create(JoinedRows(parts), kernels_, *staging_));
  }
  Result<std::unique_ptr<LinearWeights>> load_gate_up(const PackedLinear& gate,
                                                      const PackedLinear& up) override {
    return as_base<LinearWeights>(CudaLinear::create_gate_up(gate, up, kernels_, *staging_));
  }
  Result<std::unique_ptr<KvCache>> make_kv_cache(const KvCacheShape& shape) override {
    return as_base<KvCache>(CudaKvCache::create(shape));
  }
  Result<std::unique_ptr<Routing>> make_routing(int64_t experts, int64_t active,
                                                int64_t max_tokens) override {
    return as_base<Routing>(CudaRouting::create(experts, active, max_tokens));
  }
  Result<std::unique_ptr<TokenIds>> make_token_ids(int64_t size) override {
    return as_base<TokenIds>(CudaTokenIds::create(size));
  }
  Result<std::unique_ptr<StepReadback>> make_readback(int64_t rows, int64_t vocab) override {
    return as_base<StepReadback>(CudaReadback::create(rows, vocab));
  }

  void run_step(const StepArgs& args, const std::function<void()>& operators) override;

  void write(Tensor& to, std::span<const float> from) override {
    cast(to).from_host(from, stream_);
  }
  void read(const Tensor& from, int64_t rows, std::span<float> to) override {
    cast(from).to_host(rows, to, stream_);
  }
  HostActivations read(const Activations& from, int64_t tokens) override;
  std::vector<int32_t> read(const TokenIds& from, int64_t count) override;
  HostRouting read(const Routing& from, int64_t tokens) override {
    return cast(from).to_host(tokens, stream_);
  }

  void embed(const EmbedArgs& args, Tensor& y) override;
  void rmsnorm(const RmsNormArgs& args, Tensor& y) override;
  void rmsnorm_quantize(const RmsNormArgs& args, std::span<const int32_t> perm,
                        Activations& y) override;
  void quantize(const Tensor& x, int64_t tokens, std::span<const int32_t> perm,
                Activations& y) override;
  void silu_mul_quantize(const SiluMulArgs& args, Activations& y) override;
  void linear(const LinearArgs& args) override {
    launch_linear(
        args, kernels_, {.matmul = &matmul_, .split = recording_ ? nullptr : &split_}, expanded_,
        gemm_workspace_.data(),
        step_ == nullptr ? std::span<const uint8_t>() : weight_order_.after(cast(*args.w)),
        stream_);
  }
  void route(const Tensor& scores, int64_t tokens, Routing& routing) override {
    cuda::route(cast(scores), tokens, cast(routing), stream_);
  }
  void gather_routed(const Activations& x, const Routing& routing, int64_t tokens,
                     Activations& y) override {
    cuda::gather_routed(cast(x), cast(routing), tokens, cast(y), stream_);
  }
  void grouped_linear(const GroupedLinearArgs& args) override {
    must(cuda::grouped_linear(args, kernels_, experts_, gemm_workspace_.data(), stream_));
  }
  void combine(const Tensor& x, const Routing& routing, int64_t tokens, Tensor& y) override {
    cuda::combine(cast(x), cast(routing), tokens, cast(y), stream_);
  }
  void rope_append_kv(const RopeAppendArgs& args) override;
  void paged_attention(const AttentionArgs& args) override;
  void choose_tokens(const Tensor& x, int64_t rows, std::span<const TokenDraw> draws,
                     TokenIds& y) override;
  void gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& y) override;
  void dequantize(const Activations& x, int64_t tokens, Tensor& y) override;
  void accumulate_gram(const Tensor& x, int64_t tokens, Tensor& h) override;
  DeviceQuantizer* device_quantizer() override { return quantizer_.get(); }

 private:
  explicit CudaBackend(const CudaOptions& options)
      : options_(options),
        kernels_(kernels_for(options)),
        exact_attention_(options.exact_attention || !kernels_.hopper) {}
  void use_batch(const Batch& batch);
  template <class T>
  const T* on_device(std::span<const T> values);
  QuantizeParams quantize_params(CudaActivations& y, int64_t tokens, std::span<const int32_t> perm);
  bool launch_fast_rows(const RmsNormArgs& args, std::span<const int32_t> perm, CudaActivations& y);

  CudaOptions options_;
  ChipKernels kernels_;
  bool exact_attention_;  // asked for, or all that this chip has
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<Staging> staging_;
  DeviceArray<uint8_t> gemm_workspace_, attention_workspace_;
  Matmul matmul_;
  ExpandedLinear expanded_;
  SplitProduct split_;
  HostArrays arrays_;
  ExpertTables experts_;
  DeviceBatch batch_;
  Upload rows_;                  // ids, row numbers or draws of one operator
  const Batch* step_ = nullptr;  // of the step that runs: batch_ holds it
  StepGraphs graphs_;
  WeightOrder weight_order_;
  bool recording_ = false;  // a step whose operators may be recorded runs
  std::unique_ptr<CudaQuantizer> quantizer_;
};

Result<std::unique_ptr<Backend>> CudaBackend::create(const CudaOptions& options) {
  ATOM_TRY(check_device());
  std::unique_ptr<CudaBackend> backend(new CudaBackend(options));
  ATOM_CUDA_CHECK(cudaStreamCreate(&backend->stream_));
  backend->staging_ = std::make_unique<Staging>(backend->stream_);
  backend->quantizer_ = std::make_unique<CudaQuantizer>(backend->stream_);
  backend->gemm_workspace_ = ATOM_TRY(DeviceArray<uint8_t>::allocate(gemm_workspace_bytes()));
  backend->gemm_workspace_.fill_bytes(0);
  backend->attention_workspace_ =
      ATOM_TRY(DeviceArray<uint8_t>::allocate(attention_workspace_bytes()));
  backend->attention_workspace_.fill_bytes(0);
  return std::unique_ptr<Backend>(std::move(backend));
}

CudaBackend::~CudaBackend() {
  if (stream_ == nullptr) return;
  (void)cudaStreamSynchronize(stream_);
  (void)cudaStreamDestroy(stream_);
}

// --- steps

void CudaBackend::run_step(const StepArgs& args, const std::function<void()>& operators) {
  const Batch& batch = *args.batch;
  const auto logit_rows = static_cast<int64_t>(batch.logit_rows.size());
  const StepReading& reading = args.reading;
  auto* readback = static_cast<CudaReadback*>(reading.to);
  must(batch_.set(batch, stream_));
  if (readback != nullptr) readback->begin(stream_);
  step_ = &batch;
  weight_order_.begin_step();
  // Prompts differ too much to be worth recording.
  if (!batch_.chunks().empty() || exact_attention_) {
    operators();
  } else {
    recording_ = true;
    graphs_.run({.cache = static_cast<const CudaKvCache*>(args.cache)->serial(),
                 .state = cast(*args.state).serial(),
                 .logits = args.logits == nullptr ? 0 : cast(*args.logits).serial(),
                 .chosen = reading.chosen == nullptr ? 0 : cast(*reading.chosen).serial(),
                 .chooses = readback != nullptr && reading.whole_rows < logit_rows,
                 .tokens = batch.size(),
                 .logit_rows = logit_rows,
                 .draws = batch_.draw_count(),
                 .longest = batch_.longest_decode(),
                 .batch = batch_.address()},
                stream_, operators);
    recording_ = false;
  }
  step_ = nullptr;
  if (readback != nullptr) readback->end(args, stream_);
}

void CudaBackend::use_batch(const Batch& batch) {
  if (step_ != &batch) must(batch_.set(batch, stream_));
}

// The arrays of the running step are in GPU memory already.
template <class T>
const T* CudaBackend::on_device(std::span<const T> values) {
  const void* there = step_ == nullptr ? nullptr : batch_.find(*step_, values.data());
  if (there == nullptr) {
    must(rows_.send(
        {reinterpret_cast<const int32_t*>(values.data()), values.size_bytes() / sizeof(int32_t)},
        stream_));
    there = rows_.data();
  }
  return static_cast<const T*>(there);
}

// --- host access

HostActivations CudaBackend::read(const Activations& from, int64_t tokens) {
  ATOM_CHECK(tokens <= from.max_tokens(), "read past the end");
  ATOM_CUDA_CHECK(cudaStreamSynchronize(stream_));
  return cast(from).to_host(tokens);
}

std::vector<int32_t> CudaBackend::read(const TokenIds& from, int64_t count) {
  ATOM_CHECK(count <= from.size(), "read past the end");
  std::vector<int32_t> ids(static_cast<size_t>(count));
  ATOM_CUDA_CHECK(cudaMemcpyAsync(ids.data(), cast(from).data(), ids.size() * sizeof(int32_t),
                                  cudaMemcpyDeviceToHost, stream_));
  ATOM_CUDA_CHECK(cudaStreamSynchronize(stream_));
  return ids;
}

// --- rows

void CudaBackend::embed(const EmbedArgs& args, Tensor& y) {
  const std::span<const int32_t> ids = args.ids;
  const WeightView& view = cast(*args.table).view();
  ATOM_CHECK(static_cast<int64_t>(ids.size()) <= y.rows() && y.cols() == view.cols,
             "embed: shape of y");
  const int64_t least = args.earlier == nullptr ? 0 : -args.earlier->size();
  for (const int32_t id : ids) {
    ATOM_CHECK(id >= least && id < view.rows, "token id outside the embedding");
  }
  launch_embed({.w = view,
                .ids = on_device(ids),
                .earlier = args.earlier == nullptr ? nullptr : cast(*args.earlier).data(),
                .y = cast(y).data(),
                .tokens = static_cast<int>(ids.size())},
               stream_);
}

QuantizeParams CudaBackend::quantize_params(CudaActivations& y, int64_t tokens,
                                            std::span<const int32_t> perm) {
  ATOM_CHECK(tokens <= y.max_tokens(), "more tokens than the activations hold");
  ATOM_CHECK(perm.empty() || static_cast<int64_t>(perm.size()) == y.channels(),
             "permutation of another size");
  const LinearFormat& format = y.format();
  QuantizeParams params = {.tokens = static_cast<int>(tokens),
                           .channels = static_cast<int>(y.channels()),
                           .perm = must(arrays_.ints(perm)),
                           .format = format.act,
                           .outlier_kind = format.weight.outlier_kind,
                           .body = static_cast<int>(y.body),
                           .group = static_cast<int>(y.group),
                           .places = y.places,
                           .codes = y.codes.data(),
                           .scales = y.scales.data(),
                           .outlier_scales = y.outlier_scales.data(),
                           .sums = y.sums.size() > 0 ? y.sums.data() : nullptr,
                           .values = y.value_count > 0 ? y.values.data() : nullptr,
                           .value_count = static_cast<int>(y.value_count),
                           .decoded_values = y.decoded_values,
                           .halves_out = y.in_halves ? y.halves.data() : nullptr};
  for (size_t c = 0; c < std::size(numerics::kSearchClips); ++c) {
    params.clips[c] = format.act.clip * numerics::kSearchClips[c];
  }
  return params;
}

void CudaBackend::rmsnorm(const RmsNormArgs& args, Tensor& y) {
  const int64_t channels = args.x->cols();
  ATOM_CHECK(args.tokens <= args.x->rows() && args.tokens <= y.rows() && y.cols() == channels &&
                 static_cast<int64_t>(args.weight.size()) == channels,
             "rmsnorm: shapes");
  ATOM_CHECK(channels <= kMostRowChannels, "rmsnorm: too many channels");
  launch_quantize_rows({.source = RowSource::kNorm,
                        .x = cast(*args.x).data(),
                        .tokens = static_cast<int>(args.tokens),
                        .channels = static_cast<int>(channels),
                        .norm_weight = must(arrays_.floats(args.weight)),
                        .eps = args.eps,
                        .values = cast(y).data(),
                        .value_count = static_cast<int>(channels)},
                       stream_);
}

// The tuned kernel of w4a8 inputs, where the chip has it and it serves the case. An empty weight:
// no norm.
bool CudaBackend::launch_fast_rows(const RmsNormArgs& args, std::span<const int32_t> perm,
                                   CudaActivations& y) {
  const ActFormat& act = y.format().act;
  const int64_t channels = y.channels(), outliers = y.format().weight.outliers;
  if (!kernels_.hopper || !takes_int8_blocks(y.places.layout) || act.bits != 8 ||
      act.rule != ActRule::kSymmetric || act.search || channels % 16 != 0 || outliers % 4 != 0 ||
      channels > kMostNormChannels) {
    return false;
  }
  must(launch_rmsnorm_quantize({.norm = !args.weight.empty(),
                                .x = cast(*args.x).data(),
                                .x_type = DType::kF32,
                                .tokens = args.tokens,
                                .channels = channels,
                                .outliers = outliers,
                                .perm = must(arrays_.permutation16(perm, channels)),
                                .weight = must(arrays_.gathered(args.weight, perm)),
                                .eps = args.eps,
                                .clip = act.clip,
                                .shape = y.places.shape,
                                .capacity = y.places.capacity,
                                .codes = y.codes.data(),
                                .scales = y.scales.data(),
                                .outlier_scales = y.outlier_scales.data(),
                                .sums = y.sums.data()},
                               stream_));
  return true;
}

void CudaBackend::rmsnorm_quantize(const RmsNormArgs& args, std::span<const int32_t> perm,
                                   Activations& y) {
  ATOM_CHECK(args.tokens <= args.x->rows() && y.channels() == args.x->cols() &&
                 static_cast<int64_t>(args.weight.size()) == y.channels(),
             "rmsnorm_quantize: shapes");
  QuantizeParams params = quantize_params(cast(y), args.tokens, perm);
  if (launch_fast_rows(args, perm, cast(y))) return;
  params.source = RowSource::kNorm;
  params.x = cast(*args.x).data();
  params.norm_weight = must(serves_group_rows(params) ? arrays_.gathered(args.weight, perm)
                                                      : arrays_.floats(args.weight));
  params.eps = args.eps;
  launch_quantize_rows(params, stream_);
}

void CudaBackend::quantize(const Tensor& x, int64_t tokens, std::span<const int32_t> perm,
                           Activations& y) {
  ATOM_CHECK(tokens <= x.rows() && y.channels() == x.cols(), "quantize: shapes");
  QuantizeParams params = quantize_params(cast(y), tokens, perm);
  params.x = cast(x).raw();
  params.halves = cast(x).halves();
  if (!params.halves &&
      launch_fast_rows({.x = &x, .weight = {}, .tokens = tokens}, perm, cast(y))) {
    return;
  }
  launch_quantize_rows(params, stream_);
}

void CudaBackend::silu_mul_quantize(const SiluMulArgs& args, Activations& y) {
  ATOM_CHECK(args.tokens <= args.gate_up->rows() && args.gate_up->cols() == 2 * y.channels(),
             "silu_mul_quantize: shapes");
  QuantizeParams params = quantize_params(cast(y), args.tokens, {});
  params.source = RowSource::kSilu;
  params.x = cast(*args.gate_up).raw();
  params.halves = cast(*args.gate_up).halves();
  launch_quantize_rows(params, stream_);
}

void CudaBackend::choose_tokens(const Tensor& x, int64_t rows, std::span<const TokenDraw> draws,
                                TokenIds& y) {
  ATOM_CHECK(rows <= x.rows() && rows <= y.size() && x.cols() <= INT32_MAX,
             "choose_tokens: shapes");
  ATOM_CHECK(draws.empty() || static_cast<int64_t>(draws.size()) == rows,
             "choose_tokens: a draw a row");
  launch_choose({.x = cast(x).data(),
                 .draws = draws.empty() ? nullptr : on_device(draws),
                 .y = static_cast<CudaTokenIds&>(y).data(),
                 .rows = rows,
                 .cols = x.cols()},
                stream_);
}

void CudaBackend::gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& y) {
  ATOM_CHECK(static_cast<int64_t>(rows.size()) <= y.rows() && x.cols() == y.cols(),
             "gather_rows: shapes");
  for (const int32_t row : rows) {
    ATOM_CHECK(row >= 0 && row < x.rows(), "gather_rows: row out of range");
  }
  launch_gather_rows({.x = cast(x).data(),
                      .rows = on_device(rows),
                      .y = cast(y).data(),
                      .count = static_cast<int64_t>(rows.size()),
                      .cols = x.cols()},
                     stream_);
}

void CudaBackend::dequantize(const Activations& x, int64_t tokens, Tensor& y) {
  const CudaActivations& acts = cast(x);
  ATOM_CHECK(tokens <= x.max_tokens() && tokens <= y.rows() && x.channels() == y.cols(),
             "dequantize: shapes");
  launch_dequantize_rows({.tokens = static_cast<int>(tokens),
                          .channels = static_cast<int>(x.channels()),
                          .body = static_cast<int>(acts.body),
                          .group = static_cast<int>(acts.group),
                          .outlier_kind = x.format().weight.outlier_kind,
                          .places = acts.places,
                          .codes = x.format().act.quantized ? acts.codes.data() : nullptr,
                          .scales = acts.scales.data(),
                          .outlier_scales = acts.outlier_scales.data(),
                          .values = acts.values.data(),
                          .value_count = static_cast<int>(acts.value_count),
                          .halves = acts.in_halves ? acts.halves.data() : nullptr,
                          .y = cast(y).data()},
                         stream_);
}

void CudaBackend::accumulate_gram(const Tensor& x, int64_t tokens, Tensor& h) {
  ATOM_CHECK(tokens <= x.rows() && h.rows() == x.cols() && h.cols() == x.cols(),
             "accumulate_gram: shapes");
  if (split_.gram(
          matmul_,
          {.x = cast(x).data(), .h = cast(h).data(), .tokens = tokens, .channels = x.cols()},
          stream_)) {
    return;
  }
  launch_gram({.x = cast(x).data(), .h = cast(h).data(), .tokens = tokens, .channels = x.cols()},
              stream_);
}

// --- attention

void CudaBackend::rope_append_kv(const RopeAppendArgs& args) {
  use_batch(*args.batch);
  launch_rope_append(rope_append_params(args, batch_, arrays_), stream_);
}

void CudaBackend::paged_attention(const AttentionArgs& args) {
  use_batch(*args.batch);
  launch_attention(attention_params(args, batch_), attention_work(batch_, exact_attention_),
                   attention_workspace_.data(), stream_);
}

}  // namespace
}  // namespace cuda

Result<std::unique_ptr<Backend>> make_cuda_backend(const CudaOptions& options) {
  return cuda::CudaBackend::create(options);
}

}  // namespace atom
