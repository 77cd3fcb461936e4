#include "tensor/formats.h"

namespace atom {
namespace {

Status invalid_field(const char* field, int64_t value, const char* why) {
  return error(ErrorCode::kInvalidArgument, "format: {} = {}: {}", field, value, why);
}

bool known_bits(int bits) { return bits == 3 || bits == 4 || bits == 8; }

}  // namespace

Status validate(const LinearFormat& format, int64_t in) {
  const WeightFormat& w = format.weight;
  const ActFormat& a = format.act;
  if (in <= 0) return invalid_field("channels", in, "must be positive");
  if (w.kind == WeightKind::kFloat) {
    if (w.dtype != DType::kF32 && w.dtype != DType::kF16 && w.dtype != DType::kBF16) {
      return invalid_field("dtype", static_cast<int64_t>(w.dtype), "not a float type");
    }
    if (!a.quantized) {
      if (w.outliers != 0) return invalid_field("outliers", w.outliers, "float linears have none");
      return {};
    }
  } else if (!known_bits(w.bits)) {
    return invalid_field("bits", w.bits, "must be 3, 4 or 8");
  }
  if (w.kind == WeightKind::kTwoLevel && w.bits != 4) {
    return invalid_field("bits", w.bits, "two-level weights have 4");
  }
  if (w.grid == CodeGrid::kE2M1 && (w.kind != WeightKind::kGrouped || w.bits != 4)) {
    return error(ErrorCode::kInvalidArgument, "format: grid = fp4: for grouped weights of 4 bits");
  }
  if (w.scales == GroupScales::kE4M3 && w.grid != CodeGrid::kE2M1) {
    return error(ErrorCode::kInvalidArgument, "format: scales = e4m3: for the grid fp4");
  }
  if (w.outliers < 0 || w.outliers >= in) {
    return invalid_field("outliers", w.outliers, "must be 0 or more and fewer than the channels");
  }
  if ((w.outliers == 0) != (w.outlier_kind == OutlierKind::kNone)) {
    return invalid_field("outliers", w.outliers, "does not go with outlier_kind");
  }
  const int64_t body = body_channels(w, in);
  if (body % 4 != 0)
    return invalid_field("outliers", w.outliers, "leaves a body not a multiple of 4");
  if (w.group < 0 || w.group % 4 != 0)
    return invalid_field("group", w.group, "not a multiple of 4");
  if (w.group != 0 && body % w.group != 0) {
    return invalid_field("group", w.group, "does not divide the body channels");
  }
  if (!a.quantized) return {};
  if (!known_bits(a.bits)) return invalid_field("act.bits", a.bits, "must be 3, 4 or 8");
  if (a.group != 0 && a.group != w.group) {
    return invalid_field("act.group", a.group, "must be 0 or the weights' group");
  }
  if (w.kind == WeightKind::kTwoLevel && a.group != 0) {
    return invalid_field("act.group", a.group, "two-level weights take one scale a token");
  }
  if (!(a.clip > 0.0f && a.clip <= 1.0f)) {
    return error(ErrorCode::kInvalidArgument, "format: act.clip = {}: must be in (0, 1]", a.clip);
  }
  if (a.grid == CodeGrid::kE2M1 && (a.bits != 4 || a.rule != ActRule::kSymmetric)) {
    return error(ErrorCode::kInvalidArgument,
                 "format: act.grid = fp4: for activations of 4 bits with rule symmetric");
  }
  if (a.scales == GroupScales::kE4M3 && a.grid != CodeGrid::kE2M1) {
    return error(ErrorCode::kInvalidArgument, "format: act.scales = e4m3: for the grid fp4");
  }
  if (a.rule == ActRule::kAsymmetric && a.bits == 8) {
    return invalid_field("act.bits", a.bits, "asymmetric codes minus zero must fit int8");
  }
  return {};
}

Status validate(const KvFormat& format, int64_t head_dim) {
  if (head_dim <= 0 || head_dim % 2 != 0) {
    return invalid_field("head_dim", head_dim, "must be even and positive");
  }
  if (format.kind == KvKind::kInt && !known_bits(format.bits)) {
    return invalid_field("kv.bits", format.bits, "must be 3, 4 or 8");
  }
  if (format.hadamard && (head_dim & (head_dim - 1)) != 0) {
    return invalid_field("kv.hadamard", head_dim, "needs a head dimension that is a power of two");
  }
  if (format.pre_rope && (format.centered || format.hadamard)) {
    return invalid_field("kv.pre_rope", 1, "goes with neither centered nor hadamard");
  }
  return {};
}

std::string describe(const LinearFormat& format) {
  const WeightFormat& w = format.weight;
  if (w.kind == WeightKind::kFloat) return std::string(dtype_name(w.dtype));
  const auto name = [](const auto& f) -> std::string {
    if (f.scales == GroupScales::kE4M3) return "nvfp4";
    return f.grid == CodeGrid::kE2M1 ? "fp4" : std::to_string(f.bits);
  };
  std::string text =
      fmt::format("w{}a{}", name(w), format.act.quantized ? name(format.act) : std::string("16"));
  if (w.kind == WeightKind::kTwoLevel) text += " two-level";
  if (w.group != 0) text += fmt::format(" g{}", w.group);
  if (w.outliers != 0) {
    text += fmt::format(" o{}{}", w.outliers, w.outlier_kind == OutlierKind::kFloat ? "f" : "");
  }
  return text;
}

std::string describe(const KvFormat& format) {
  if (format.kind == KvKind::kF32) return "f32";
  if (format.kind == KvKind::kF16) return "f16";
  return fmt::format("int{}{}{}{}", format.bits, format.pre_rope ? " pre-rope" : "",
                     format.centered ? " centered" : "", format.hadamard ? " hadamard" : "");
}

double effective_bits(const WeightFormat& format, int64_t in) {
  if (format.kind == WeightKind::kFloat) return static_cast<double>(8 * dtype_bytes(format.dtype));
  const int64_t body = body_channels(format, in);
  const int64_t groups = group_count(body, format.group);
  // 3-bit codes are stored in nibbles.
  const int64_t code_bits = format.bits == 8 ? 8 : 4;
  int64_t row_bits = body * code_bits;
  row_bits += format.scales == GroupScales::kE4M3 ? groups * 8 + 16 : groups * 16;
  if (format.kind == WeightKind::kTwoLevel) row_bits += 16;
  if (format.outlier_kind == OutlierKind::kFloat) row_bits += format.outliers * 16;
  if (format.outlier_kind == OutlierKind::kInt8) {
    row_bits += format.outliers * 8 + (format.kind == WeightKind::kTwoLevel ? 0 : 16);
  }
  return static_cast<double>(row_bits) / static_cast<double>(in);
}

}  // namespace atom
