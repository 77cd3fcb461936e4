#include "backend/ref/ref_objects.h"

#include <algorithm>

#include "ops/numerics.h"

namespace atom::ref {

// --- activations

RefActivations::RefActivations(const LinearFormat& format, int64_t channels, int64_t max_tokens)
    : format_(format),
      channels_(channels),
      max_tokens_(max_tokens),
      body_(body_channels(format.weight, channels)),
      groups_(group_count(body_, format.act.group)),
      values_(static_cast<size_t>(max_tokens * channels)) {
  if (!format.act.quantized) return;
  codes_.resize(static_cast<size_t>(max_tokens * channels));
  scales_.resize(static_cast<size_t>(max_tokens * groups_));
  if (format.weight.outlier_kind == OutlierKind::kInt8) {
    outlier_scales_.resize(static_cast<size_t>(max_tokens));
  }
}

void RefActivations::store_group(int64_t token, int64_t first, std::span<const float> x,
                                 const ActFormat& format, float unit, float& scale) {
  const auto at = static_cast<size_t>(token * channels_ + first);
  scale = numerics::quantize_group(x, format, codes_.data() + at, unit);
  for (size_t i = 0; i < x.size(); ++i) {
    values_[at + i] = codes_[at + i] * static_cast<double>(scale);
  }
}

void RefActivations::store(int64_t token, std::span<const float> x) {
  // The channels that stay in float are simply not overwritten below.
  std::copy(x.begin(), x.end(), values_.begin() + token * channels_);
  if (!format_.act.quantized) return;
  const int64_t group = body_ / groups_;
  const float unit = numerics::token_unit(x.first(static_cast<size_t>(body_)), format_.act);
  for (int64_t g = 0; g < groups_; ++g) {
    store_group(token, g * group,
                x.subspan(static_cast<size_t>(g * group), static_cast<size_t>(group)), format_.act,
                unit, scales_[static_cast<size_t>(token * groups_ + g)]);
  }
  if (format_.weight.outlier_kind == OutlierKind::kInt8) {
    store_group(token, body_, x.subspan(static_cast<size_t>(body_)), numerics::kOutlierActs, 0.0f,
                outlier_scales_[static_cast<size_t>(token)]);
  }
}

void RefActivations::copy(int64_t token, const RefActivations& from, int64_t from_token) {
  const auto copy_row = [&](const auto& source, auto& to, int64_t size) {
    if (!to.empty()) {
      std::copy_n(source.begin() + from_token * size, size, to.begin() + token * size);
    }
  };
  copy_row(from.codes_, codes_, channels_);
  copy_row(from.scales_, scales_, groups_);
  copy_row(from.outlier_scales_, outlier_scales_, 1);
  copy_row(from.values_, values_, channels_);
}

std::span<const double> RefActivations::values(int64_t token) const {
  return std::span(values_).subspan(static_cast<size_t>(token * channels_),
                                    static_cast<size_t>(channels_));
}

HostActivations RefActivations::to_host(int64_t tokens) const {
  const auto leading = [tokens](const auto& array, auto& to, int64_t per_token) {
    if (!array.empty()) to.assign(array.begin(), array.begin() + tokens * per_token);
  };
  HostActivations host;
  leading(codes_, host.codes, channels_);
  leading(scales_, host.scales, groups_);
  leading(outlier_scales_, host.outlier_scales, 1);
  host.values.reserve(static_cast<size_t>(tokens * channels_));
  for (int64_t i = 0; i < tokens * channels_; ++i) {
    host.values.push_back(static_cast<float>(values_[static_cast<size_t>(i)]));
  }
  return host;
}

// --- weights

RefLinear::RefLinear(const PackedLinear& packed)
    : format_(packed.format), rows_(packed.rows), cols_(packed.cols), bias_(packed.bias) {
  std::vector<double> exact(static_cast<size_t>(rows_ * cols_));
  dequantize(packed, exact);
  values_.reserve(exact.size());
  for (const double value : exact) values_.push_back(static_cast<float>(value));
}

int64_t RefLinear::bytes() const {
  return static_cast<int64_t>((values_.size() + bias_.size()) * sizeof(float));
}

// --- KV cache

RefKvCache::RefKvCache(const KvCacheShape& shape)
    : shape_(shape),
      values_(static_cast<size_t>(shape.layers * 2 * shape.pages * kPageTokens * shape.kv_heads *
                                  shape.head_dim)),
      prefix_(static_cast<size_t>(shape.layers * 2 * shape.prefix_tokens * shape.kv_heads *
                                  shape.head_dim)) {}

size_t RefKvCache::offset(int64_t layer, Part part, int64_t page, int64_t slot,
                          int64_t head) const {
  ATOM_CHECK(page >= 0 && page < shape_.pages, "no such page");
  const int64_t token = ((layer * 2 + part) * shape_.pages + page) * kPageTokens + slot;
  return static_cast<size_t>((token * shape_.kv_heads + head) * shape_.head_dim);
}

size_t RefKvCache::prefix_offset(int64_t layer, Part part, int64_t token, int64_t head) const {
  const int64_t row = (layer * 2 + part) * shape_.prefix_tokens + token;
  return static_cast<size_t>((row * shape_.kv_heads + head) * shape_.head_dim);
}

void RefKvCache::set_prefix(int64_t layer, std::span<const float> k, std::span<const float> v) {
  ATOM_CHECK(layer >= 0 && layer < shape_.layers, "no such layer");
  const auto size = static_cast<size_t>(shape_.prefix_tokens * shape_.kv_heads * shape_.head_dim);
  ATOM_CHECK(k.size() == size && v.size() == size, "prefix of the wrong size");
  if (size == 0) return;
  std::copy(k.begin(), k.end(), prefix_.data() + prefix_offset(layer, kKey, 0, 0));
  std::copy(v.begin(), v.end(), prefix_.data() + prefix_offset(layer, kValue, 0, 0));
}

void RefKvCache::store(int64_t layer, Part part, int64_t page, int64_t slot, int64_t head,
                       std::span<const float> x) {
  double* to = values_.data() + offset(layer, part, page, slot, head);
  switch (shape_.format.kind) {
    case KvKind::kF32:
      std::copy(x.begin(), x.end(), to);
      return;
    case KvKind::kF16:
      for (size_t i = 0; i < x.size(); ++i) to[i] = f16_to_f32(f32_to_f16(x[i]));
      return;
    case KvKind::kInt: {
      std::vector<uint8_t> codes(x.size());
      const numerics::KvScale s = numerics::quantize_kv(x, shape_.format.bits, codes.data());
      const double scale = f16_to_f32(s.scale), min = f16_to_f32(s.min);
      for (size_t i = 0; i < x.size(); ++i) to[i] = min + codes[i] * scale;
      return;
    }
  }
}

std::span<const double> RefKvCache::load(int64_t layer, Part part, std::span<const int32_t> pages,
                                         int64_t token, int64_t head) const {
  const int32_t page = pages[static_cast<size_t>(token / kPageTokens)];
  return std::span(values_).subspan(offset(layer, part, page, token % kPageTokens, head),
                                    static_cast<size_t>(shape_.head_dim));
}

std::span<const double> RefKvCache::load_prefix(int64_t layer, Part part, int64_t token,
                                                int64_t head) const {
  return std::span(prefix_).subspan(prefix_offset(layer, part, token, head),
                                    static_cast<size_t>(shape_.head_dim));
}

}  // namespace atom::ref
