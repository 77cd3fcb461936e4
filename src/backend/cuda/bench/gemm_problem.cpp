#include "backend/cuda/bench/gemm_problem.h"

#include "backend/cuda/bench/bench.h"
#include "backend/cuda/gemm/pack_weights.h"
#include "backend/cuda/gemm/w4a16_layout.h"
#include "base/random.h"

namespace atom::cuda::bench {
namespace {

// Some blocks. Any byte is a legal code and a legal two-level scale; f16 scales lie about 1e-3, or
// where those of w4a16 do.
std::vector<uint8_t> weight_blocks(const GemmArgs& args, uint64_t seed) {
  Random random(seed);
  const bool halves = args.format == GemmFormat::kW4A16;
  const int64_t block = halves ? w4a16::block_bytes(args.shape.groups) : args.shape.block_bytes();
  // The scales behind all of the codes, or behind half of them.
  const int64_t scales = halves ? w4a16::scale_offset(0, 0) : w4a8::kScaleOffset;
  const int64_t scale_bytes = args.shape.groups * (halves ? w4a16::kGroupBytes : w4a8::kScaleBytes);
  std::vector<uint8_t> blocks(static_cast<size_t>(61 * block));
  for (size_t i = 0; i < blocks.size(); ++i) {
    const auto byte = static_cast<uint8_t>(random.next());
    const auto in_block = static_cast<int64_t>(i) % block;
    const bool high_of_f16 = (halves || has_group_scales(args.format)) && in_block >= scales &&
                             in_block < scales + scale_bytes && in_block % 2 == 1;
    blocks[i] = high_of_f16 ? static_cast<uint8_t>((halves ? 0x74 : 0x14) | (byte & 3)) : byte;
  }
  return blocks;
}

}  // namespace

Result<GemmProblem> GemmProblem::create(GemmFormat format, const KernelSize& size,
                                        int64_t outliers) {
  const bool two_level = format == GemmFormat::kW4A8, w4a4 = has_group_scales(format);
  const bool bytes = format == GemmFormat::kW8A8, halves = format == GemmFormat::kW4A16;
  const CodeGrid grid = format == GemmFormat::kFp4 ? CodeGrid::kE2M1 : CodeGrid::kInt;
  const LinearFormat linear = {
      .weight = {.kind = two_level ? WeightKind::kTwoLevel : WeightKind::kGrouped,
                 .bits = bytes ? 8 : 4,
                 .group = bytes ? 0 : kGroup,
                 .outliers = outliers,
                 .outlier_kind = outliers > 0 ? OutlierKind::kInt8 : OutlierKind::kNone,
                 .grid = grid},
      .act = halves ? ActFormat{}
                    : ActFormat{.quantized = true,
                                .bits = w4a4 ? 4 : 8,
                                .group = w4a4 ? kGroup : 0,
                                .grid = grid}};
  ATOM_TRY(validate(linear, size.inputs));
  GemmProblem p;
  GemmArgs& args = p.args_;
  p.inputs_ = size.inputs;
  args.format = format;
  args.rows = size.rows;
  args.tokens = size.tokens;
  args.capacity = (size.tokens + 255) / 256 * 256;
  args.shape = w4a8_shape(linear.weight, size.inputs);
  // Of whole blocks of 128 rows, which w4a16 has.
  const int64_t weight_bytes =
      (size.rows + 127) / 128 * 2 * args.shape.blocks() * args.shape.block_bytes();
  const int64_t code_bytes = args.capacity * args.shape.act_blocks() * act_bytes(format);
  const int copies = rotations(weight_bytes + size.tokens * size.inputs * (halves ? 2 : 1));
  for (int i = 0; i < copies; ++i) {
    const auto seed = static_cast<uint64_t>(2 * i);
    p.weights_.push_back(ATOM_TRY(repeated(weight_bytes, weight_blocks(args, seed))));
    // Of w4a4's bytes only sign and magnitude; of E2M1's codes those up to 12 in fours.
    const uint8_t mask = !w4a4 ? 0xff : grid == CodeGrid::kE2M1 ? 0x8c : 0x87;
    p.x_.push_back(ATOM_TRY(halves ? random_halves(code_bytes / 2, seed + 1)
                                   : random_bytes(code_bytes, seed + 1, mask)));
    p.y_.push_back(ATOM_TRY(DeviceArray<uint8_t>::allocate(size.rows * size.tokens * 2)));
  }
  p.row_scales_ = ATOM_TRY(same_floats(size.rows + 64, 1e-3f));
  p.x_scales_ = ATOM_TRY(
      same_floats(args.capacity * std::max(1, args.shape.body_blocks * args.shape.groups), 1e-2f));
  p.x_sums_ = ATOM_TRY(DeviceArray<int32_t>::copy_of(
      std::vector<int32_t>(static_cast<size_t>(args.capacity), 1000)));
  p.workspace_ = ATOM_TRY(DeviceArray<uint8_t>::allocate(gemm_workspace_bytes()));
  p.workspace_.fill_bytes(0);
  return p;
}

GemmArgs GemmProblem::args(int copy) const {
  const auto c = static_cast<size_t>(copy);
  GemmArgs args = args_;
  args.weights = weights_[c].data();
  args.row_scales = row_scales_.data();
  args.x = reinterpret_cast<const int8_t*>(x_[c].data());
  args.x_scales = args.format == GemmFormat::kW4A16 ? nullptr : x_scales_.data();
  args.x_outlier_scales = args.shape.outlier_blocks > 0 ? x_scales_.data() : nullptr;
  args.x_sums = args.format == GemmFormat::kW4A16 ? nullptr : x_sums_.data();
  args.y = const_cast<uint8_t*>(y_[c].data());
  args.workspace = const_cast<uint8_t*>(workspace_.data());
  return args;
}

double GemmProblem::ops() const {
  return 2.0 * static_cast<double>(args_.rows) * static_cast<double>(inputs_) *
         static_cast<double>(args_.tokens);
}

double GemmProblem::bytes() const {
  return static_cast<double>((args_.rows + 63) / 64 * args_.shape.blocks() *
                                 args_.shape.block_bytes() +
                             args_.tokens * inputs_ * (args_.format == GemmFormat::kW4A16 ? 2 : 1) +
                             2 * args_.tokens * args_.rows);
}

Work GemmProblem::work(GemmChoice choice) const {
  return {.copies = copies(), .run = [this, choice](int copy, cudaStream_t stream) {
            const Status status = launch_gemm(args(copy), choice, stream);
            ATOM_CHECK(status.ok(), status.message().c_str());
          }};
}

GemmChoice fastest(GemmChoice chosen, std::span<const GemmChoice> choices,
                   const std::function<std::string(GemmChoice)>& name,
                   const std::function<Work(GemmChoice)>& work,
                   std::vector<KernelBaseline>& others) {
  constexpr int kTuningSamples = 7;
  std::vector<Work> works = {work(chosen)};
  for (const GemmChoice choice : choices) works.push_back(work(choice));
  const std::vector<Timing> timings = time_in_turns(works, kTuningSamples);
  GemmChoice best = chosen;
  double best_us = timings[0].median;
  for (size_t i = 0; i < choices.size(); ++i) {
    const double us = timings[i + 1].median;
    others.push_back({.name = name(choices[i]), .us = us});
    // Differences of less than a hundredth are noise.
    if (us < 0.99 * best_us) {
      best_us = us;
      best = choices[i];
    }
  }
  return best;
}

}  // namespace atom::cuda::bench
