#include "backend/cuda/objects.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <initializer_list>

#include "backend/cuda/gemm/pack_weights.h"
#include "backend/cuda/linear/half_groups.h"
#include "backend/cuda/linear/linear_kernels.h"
#include "tensor/packing.h"
#include "tensor/quantized_linear.h"

namespace atom::cuda {
namespace {

constexpr int64_t kCapacityStep = 256;  // of the GEMMs' activations

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// The product of sizes in elements of `bytes` bytes, as long as the GPU could have that much.
Result<int64_t> checked_size(const char* what, int64_t bytes,
                             std::initializer_list<int64_t> sizes) {
  int64_t product = bytes;
  for (const int64_t size : sizes) {
    if (size < 0 || __builtin_mul_overflow(product, size, &product)) {
      return error(ErrorCode::kInvalidArgument, "{}: size {} is negative or too large", what, size);
    }
  }
  return product / bytes;
}

template <class T>
Status allocate_zeros(DeviceArray<T>& array, int64_t size) {
  array = ATOM_TRY(DeviceArray<T>::allocate(size));
  array.fill_bytes(0);
  return {};
}

Result<BlockPacker> pack(const JoinedRows& rows, LinearLayout layout) {
  switch (layout) {
    case LinearLayout::kW4A8:
      return pack_w4a8(rows);
    case LinearLayout::kW8A8:
      return pack_w8a8(rows);
    case LinearLayout::kW4A4:
      return pack_w4a4(rows);
    case LinearLayout::kW4A4S4:
      return pack_w4a4_s4(rows);
    case LinearLayout::kW4A16:
      return pack_w4a16(rows);
    case LinearLayout::kNvFp4:
      return pack_nvfp4(rows);
    case LinearLayout::kNvFp4Sm100a:
      return pack_nvfp4_sm100a(rows);
    case LinearLayout::kRows:
      break;
  }
  ATOM_CHECK(false, "a layout without blocks");
}

}  // namespace

uint64_t next_serial() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

// --- tensors

Result<std::unique_ptr<CudaTensor>> CudaTensor::create(int64_t rows, int64_t cols,
                                                       Precision precision) {
  std::unique_ptr<CudaTensor> tensor(new CudaTensor(rows, cols, precision));
  const int64_t element = dtype_bytes(tensor->dtype());
  const int64_t count = ATOM_TRY(checked_size("tensor", element, {rows, cols}));
  tensor->data_ = ATOM_TRY(DeviceArray<uint8_t>::allocate(count * element));
  return tensor;
}

void CudaTensor::from_host(std::span<const float> values, cudaStream_t stream) {
  ATOM_CHECK(static_cast<int64_t>(values.size()) <= rows_ * cols_, "write past the end");
  std::vector<uint16_t> rounded;
  const void* source = values.data();
  if (halves()) {
    for (const float value : values) rounded.push_back(f32_to_f16(value));
    source = rounded.data();
  }
  ATOM_CUDA_CHECK(cudaMemcpyAsync(raw(), source,
                                  values.size() * static_cast<size_t>(dtype_bytes(dtype())),
                                  cudaMemcpyHostToDevice, stream));
  ATOM_CUDA_CHECK(cudaStreamSynchronize(stream));
}

void CudaTensor::to_host(int64_t rows, std::span<float> values, cudaStream_t stream) const {
  const int64_t count = rows * cols_;
  ATOM_CHECK(rows <= rows_ && static_cast<int64_t>(values.size()) >= count, "read past the end");
  std::vector<uint16_t> rounded(static_cast<size_t>(halves() ? count : 0));
  ATOM_CUDA_CHECK(cudaMemcpyAsync(
      rounded.empty() ? static_cast<void*>(values.data()) : rounded.data(), raw(),
      static_cast<size_t>(count * dtype_bytes(dtype())), cudaMemcpyDeviceToHost, stream));
  ATOM_CUDA_CHECK(cudaStreamSynchronize(stream));
  std::ranges::transform(rounded, values.begin(), f16_to_f32);
}

// --- activations

Result<std::unique_ptr<CudaActivations>> CudaActivations::create(const LinearFormat& format,
                                                                 int64_t channels,
                                                                 int64_t max_tokens,
                                                                 ChipKernels chip) {
  ATOM_TRY(checked_size("activations", 16, {channels, max_tokens}));
  if (channels > kMostRowChannels) {
    return error(ErrorCode::kUnsupported, "device 'cuda': linears of {} inputs; at most {}",
                 channels, kMostRowChannels);
  }
  std::unique_ptr<CudaActivations> acts(new CudaActivations(format, channels, max_tokens));
  const WeightFormat& w = format.weight;
  CodePlaces& places = acts->places;
  if (!format.act.quantized) {
    acts->body = acts->group = channels;
    places.layout = linear_layout(format, channels, chip);
    acts->in_halves = places.blocked() || takes_halves(format);
    if (places.blocked()) {
      places.shape = w4a8_shape(w, channels);
      places.capacity = round_up(std::max<int64_t>(max_tokens, 1), kCapacityStep);
    } else {
      places.stride = channels;
    }
    if (acts->in_halves) {
      ATOM_TRY(allocate_zeros(acts->halves, places.half_count(max_tokens)));
    } else {
      acts->value_count = channels;
    }
  } else {
    acts->body = body_channels(w, channels);
    acts->group = format.act.group == 0 ? acts->body : format.act.group;
    acts->groups = acts->body / acts->group;
    acts->decoded_values = w.kind == WeightKind::kFloat;
    if (acts->decoded_values) {
      acts->value_count = channels;
    } else if (w.outlier_kind == OutlierKind::kFloat) {
      acts->value_count = w.outliers;
    }
    places.layout = linear_layout(format, channels, chip);
    places.grid = format.act.grid;
    if (places.blocked()) {
      places.shape = w4a8_shape(w, channels);
      places.capacity = round_up(std::max<int64_t>(max_tokens, 1), kCapacityStep);
      places.outlier_offset = places.shape.body_blocks * w4a8::kBlockCols;
    } else {
      places.outlier_offset = round_up(acts->body, 16);
      places.stride = round_up(places.outlier_offset + w.outliers, 16);
    }
    const int64_t tokens = std::max(places.capacity, max_tokens);
    if (takes_int8_blocks(places.layout)) ATOM_TRY(allocate_zeros(acts->sums, tokens));
    ATOM_TRY(allocate_zeros(acts->codes, places.code_bytes(tokens)));
    ATOM_TRY(allocate_zeros(acts->scales, places.scale_count(tokens, acts->groups)));
    ATOM_TRY(allocate_zeros(acts->outlier_scales, tokens));
  }
  ATOM_TRY(allocate_zeros(acts->values, max_tokens * acts->value_count));
  return acts;
}

HostActivations CudaActivations::to_host(int64_t tokens) const {
  HostActivations host;
  const std::vector<float> floats = values.to_host();
  const auto value_of = [&](int64_t t, int64_t k) {
    return floats[static_cast<size_t>(t * value_count + k - (channels_ - value_count))];
  };
  if (in_halves) {
    const std::vector<uint16_t> all = halves.to_host();
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t k = 0; k < channels_; ++k) {
        host.values.push_back(f16_to_f32(all[static_cast<size_t>(places.half(t, k))]));
      }
    }
    return host;
  }
  if (!format_.act.quantized) {
    host.values.assign(floats.begin(), floats.begin() + tokens * channels_);
    return host;
  }
  const std::vector<int8_t> all = codes.to_host();
  const std::vector<float> all_scales = scales.to_host();
  const bool int_outliers = format_.weight.outlier_kind == OutlierKind::kInt8;
  if (int_outliers) {
    host.outlier_scales = outlier_scales.to_host();
    host.outlier_scales.resize(static_cast<size_t>(tokens));
  }
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t g = 0; g < groups; ++g) {
      host.scales.push_back(
          places.scale(all.data(), all_scales.data(), t, g * group, group, groups));
    }
    for (int64_t k = 0; k < channels_; ++k) {
      if (k >= body && !int_outliers) {
        host.codes.push_back(0);
        host.values.push_back(value_of(t, k));
        continue;
      }
      const int code = places.code(all.data(), t, k < body ? k : places.outlier_offset + k - body);
      const float scale = k < body ? host.scales[static_cast<size_t>(t * groups + k / group)]
                                   : host.outlier_scales[static_cast<size_t>(t)];
      host.codes.push_back(static_cast<int8_t>(code));
      host.values.push_back(static_cast<float>(code) * scale);
    }
  }
  return host;
}

// --- weights

Result<uint8_t*> CudaLinear::allocate(int64_t bytes) {
  arrays_.push_back(ATOM_TRY(DeviceArray<uint8_t>::allocate(bytes)));
  bytes_ += bytes;
  return arrays_.back().data();
}

template <class T, class Source>
Status CudaLinear::place(std::span<const Source> host, const T*& to, Staging& staging) {
  if (host.empty()) return {};
  uint8_t* const there = ATOM_TRY(allocate(static_cast<int64_t>(host.size_bytes())));
  to = static_cast<const T*>(static_cast<const void*>(there));
  return staging.send(there, {reinterpret_cast<const uint8_t*>(host.data()), host.size_bytes()});
}

// Rows of outlier codes padded to words.
Status CudaLinear::place_outlier_codes(const PackedLinear& packed, Staging& staging) {
  const int64_t outliers = packed.format.weight.outliers;
  view_.outlier_stride = static_cast<int>(round_up(outliers, 4));
  std::vector<int8_t> padded(static_cast<size_t>(packed.rows * view_.outlier_stride));
  for (int64_t n = 0; n < packed.rows; ++n) {
    std::copy_n(packed.outlier_codes.begin() + n * outliers, outliers,
                padded.begin() + n * view_.outlier_stride);
  }
  return place(std::span<const int8_t>(padded), view_.outlier_codes, staging);
}

Status CudaLinear::place_blocks(const JoinedRows& rows, Staging& staging) {
  const BlockPacker packer = ATOM_TRY(pack(rows, view_.layout));
  view_.shape = w4a8_shape(rows.format().weight, rows.cols());
  const int64_t bytes = packer.row_blocks * packer.row_block_bytes;
  uint8_t* const there = ATOM_TRY(allocate(bytes));
  view_.codes = there;
  blocks_ = std::make_shared<const std::span<const uint8_t>>(there, bytes);
  ATOM_TRY(staging.send(there, packer.row_blocks, packer.row_block_bytes, packer.pack));
  ATOM_TRY(place(std::span<const float>(rows.joined(&PackedLinear::bias)), view_.bias, staging));
  return place(std::span(packer.row_scales), view_.row_scales, staging);
}

namespace {

// The codes of E2M1 as bytes, which the kernels of every format read as they read 8 bits.
std::vector<uint8_t> code_bytes(const PackedLinear& packed) {
  const int64_t body = packed.body();
  std::vector<uint8_t> bytes(static_cast<size_t>(packed.rows * body));
  for (int64_t i = 0; i < packed.rows * body; ++i) {
    bytes[static_cast<size_t>(i)] =
        static_cast<uint8_t>(grouped_nibble(CodeGrid::kE2M1, packed.codes.data(), i));
  }
  return bytes;
}

// What half_groups_sm90a.cu multiplies a row's scales by.
std::vector<float> row_powers(const PackedLinear& packed) {
  std::vector<float> powers(static_cast<size_t>(packed.rows));
  for (int64_t n = 0; n < packed.rows; ++n) {
    powers[static_cast<size_t>(n)] = std::ldexp(1.0f, scale_exponent(packed, n));
  }
  return powers;
}

}  // namespace

Status CudaLinear::place_floats(const PackedLinear& packed, Staging& staging) {
  view_.body = view_.group = view_.cols;
  ATOM_TRY(place(std::span(packed.bias), view_.bias, staging));
  ATOM_TRY(place(std::span(packed.values), view_.values, staging));
  ATOM_TRY(place(std::span(packed.values16), view_.values, staging));
  if (!takes_halves(packed.format)) return {};
  std::vector<uint16_t> bias;
  for (const float value : packed.bias) bias.push_back(f32_to_f16(value));
  return place(std::span<const uint16_t>(bias), view_.half_bias, staging);
}

Status CudaLinear::place_rows(const PackedLinear& packed, ChipKernels chip, Staging& staging) {
  std::vector<float> row_scales;
  for (const uint16_t scale : packed.row_scales) row_scales.push_back(f16_to_f32(scale));
  if (has_half_groups(packed.format, chip)) row_scales = row_powers(packed);
  std::vector<float> outlier_scales;
  for (const uint16_t scale : packed.outlier_scales) outlier_scales.push_back(f16_to_f32(scale));
  if (packed.format.weight.grid == CodeGrid::kE2M1) {
    view_.format.bits = 8;
    view_.format.grid = CodeGrid::kInt;
    ATOM_TRY(place(std::span<const uint8_t>(code_bytes(packed)), view_.codes, staging));
  } else {
    ATOM_TRY(place(std::span(packed.codes), view_.codes, staging));
  }
  ATOM_TRY(place(std::span(packed.bias), view_.bias, staging));
  ATOM_TRY(place(std::span<const uint16_t>(f16_scales(packed)), view_.scales, staging));
  ATOM_TRY(place(std::span(packed.group_scales), view_.group_scales, staging));
  ATOM_TRY(place(std::span(packed.group_zeros), view_.group_zeros, staging));
  ATOM_TRY(place(std::span<const float>(row_scales), view_.row_scales, staging));
  ATOM_TRY(place(std::span<const float>(outlier_scales), view_.outlier_scales, staging));
  ATOM_TRY(place(std::span(packed.outlier_values), view_.outlier_values, staging));
  return packed.outlier_codes.empty() ? Status() : place_outlier_codes(packed, staging);
}

Result<std::unique_ptr<CudaLinear>> CudaLinear::create(const JoinedRows& rows, ChipKernels chip,
                                                       Staging& staging) {
  constexpr int64_t kMost = int64_t{1} << 30;
  if (rows.rows() > kMost || rows.cols() > kMost) {
    return error(ErrorCode::kUnsupported, "device 'cuda': a linear of {} x {}", rows.rows(),
                 rows.cols());
  }
  const WeightFormat& format = rows.format().weight;
  if (rows.format().act.quantized && rows.cols() > kMostSumChannels) {
    return error(ErrorCode::kUnsupported,
                 "device 'cuda': integer sums over {} channels could overflow", rows.cols());
  }
  std::unique_ptr<CudaLinear> linear(new CudaLinear(rows.format()));
  WeightView& view = linear->view_;
  view.format = format;
  view.rows = static_cast<int>(rows.rows());
  view.cols = static_cast<int>(rows.cols());
  if (format.kind != WeightKind::kFloat) {
    view.body = static_cast<int>(rows.body());
    view.group = format.group == 0 ? view.body : static_cast<int>(format.group);
    view.layout = linear_layout(rows.format(), rows.cols(), chip);
    if (view.layout != LinearLayout::kRows) {
      ATOM_TRY(linear->place_blocks(rows, staging));
      return linear;
    }
  }
  PackedLinear joined;
  if (rows.single() == nullptr) joined = rows.join();
  const PackedLinear& packed = rows.single() != nullptr ? *rows.single() : joined;
  ATOM_TRY(format.kind == WeightKind::kFloat ? linear->place_floats(packed, staging)
                                             : linear->place_rows(packed, chip, staging));
  return linear;
}

Result<std::unique_ptr<CudaLinear>> CudaLinear::create_gate_up(const PackedLinear& gate,
                                                               const PackedLinear& up,
                                                               ChipKernels chip, Staging& staging) {
  const PackedLinear* parts[] = {&gate, &up};
  if (!can_gate(linear_layout(gate.format, gate.cols, chip), gate.rows, chip)) {
    return create(JoinedRows(parts), chip, staging);
  }
  auto linear = ATOM_TRY(create(JoinedRows(parts, kGateRun), chip, staging));
  linear->view_.gated = true;
  return linear;
}

// --- KV cache

Result<std::unique_ptr<CudaKvCache>> CudaKvCache::create(const KvCacheShape& shape) {
  ATOM_TRY(validate(shape.format, shape.head_dim));
  if (shape.format.pre_rope) {
    return error(ErrorCode::kUnsupported,
                 "device 'cuda': keys stored before RoPE (kv.pre_rope) run on cpu and ref only");
  }
  constexpr int64_t kMostDim = 512, kMostPages = INT32_MAX / kPageTokens;
  if (shape.head_dim > kMostDim || shape.pages > kMostPages) {
    return error(ErrorCode::kUnsupported, "device 'cuda': a cache of {} pages, head size {}",
                 shape.pages, shape.head_dim);
  }
  std::unique_ptr<CudaKvCache> cache(new CudaKvCache(shape));
  cache->layout_ = PageLayout::of(shape.format, static_cast<int>(shape.head_dim));
  const int64_t bytes = ATOM_TRY(checked_size(
      "KV cache", 1, {shape.layers, shape.pages, shape.kv_heads, cache->layout_.bytes()}));
  cache->records_ = ATOM_TRY(DeviceArray<uint8_t>::allocate(bytes));
  cache->prefix_ = ATOM_TRY(DeviceArray<float>::allocate(ATOM_TRY(
      checked_size("prefix", sizeof(float),
                   {2, shape.layers, shape.prefix_tokens, shape.kv_heads, shape.head_dim}))));
  cache->prefix_.fill_bytes(0);
  return cache;
}

void CudaKvCache::set_prefix(int64_t layer, std::span<const float> k, std::span<const float> v) {
  ATOM_CHECK(layer >= 0 && layer < shape_.layers, "no such layer");
  const int64_t size = shape_.prefix_tokens * shape_.kv_heads * shape_.head_dim;
  ATOM_CHECK(static_cast<int64_t>(k.size()) == size && k.size() == v.size(),
             "prefix of the wrong size");
  float* to = prefix_.data() + 2 * layer * size;
  for (const std::span<const float> part : {k, v}) {
    ATOM_CUDA_CHECK(cudaMemcpy(to, part.data(), part.size_bytes(), cudaMemcpyHostToDevice));
    to += size;
  }
}

attention::CacheView CudaKvCache::view(int64_t layer) const {
  const int64_t page = shape_.kv_heads * layout_.bytes();
  const int64_t prefix = shape_.prefix_tokens * shape_.kv_heads * shape_.head_dim;
  const float* k = prefix_.data() + 2 * layer * prefix;
  return {.records = const_cast<uint8_t*>(records_.data()) + layer * shape_.pages * page,
          .page_stride = page,
          .record_bytes = layout_.bytes(),
          .layout = layout_,
          .kv_heads = static_cast<int>(shape_.kv_heads),
          .prefix_tokens = static_cast<int>(shape_.prefix_tokens),
          .prefix_k = k,
          .prefix_v = k + prefix};
}

}  // namespace atom::cuda
