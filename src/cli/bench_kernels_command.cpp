// atom bench kernels: microseconds of single kernels, beside what a GPU's vendor offers.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "app/device.h"
#include "backend/cuda/kernel_bench.h"
#include "base/interrupt.h"
#include "cli/commands.h"
#include "cli/number_options.h"
#include "cli/operator_figures.h"
#include "cli/output.h"

namespace atom::cli {
namespace {

using OrderedJson = nlohmann::ordered_json;

struct BenchKernelsArguments {
  std::vector<std::string> what;
  std::string device = "cuda";
  int64_t samples = 30;
  bool tune = false;
  bool json = false;
};

struct NamedKernels {
  std::string_view name;
  KernelGroup group;
};
constexpr NamedKernels kKernelGroups[] = {{"w4a8", KernelGroup::kW4A8},
                                          {"w4a4", KernelGroup::kW4A4},
                                          {"fp4", KernelGroup::kFp4},
                                          {"w8a8", KernelGroup::kW8A8},
                                          {"w4a16", KernelGroup::kW4A16},
                                          {"experts", KernelGroup::kExperts},
                                          {"attention", KernelGroup::kAttention},
                                          {"rows", KernelGroup::kRows},
                                          {"reorder", KernelGroup::kReorder},
                                          {"sampling", KernelGroup::kSampling}};

constexpr int64_t kMostOfSize = 1 << 20;
constexpr int64_t kMostElements = int64_t{1} << 30;  // of the weights, inputs and outputs each

// "NxKxM".
std::optional<KernelSize> parse_size(std::string_view text) {
  KernelSize size;
  for (int64_t* part : {&size.rows, &size.inputs, &size.tokens}) {
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), *part);
    if (code != std::errc() || *part < 1 || *part > kMostOfSize) return std::nullopt;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    const bool last = part == &size.tokens;
    if (text.empty() != last || (!last && text.front() != 'x')) return std::nullopt;
    if (!last) text.remove_prefix(1);
  }
  if (size.rows * size.inputs > kMostElements || size.tokens * size.inputs > kMostElements ||
      size.tokens * size.rows > kMostElements) {
    return std::nullopt;
  }
  return size;
}

OrderedJson figure_json(const KernelFigure& figure) {
  OrderedJson row = {{"group", figure.group},   {"problem", figure.problem},
                     {"kernel", figure.kernel}, {"us_median", figure.us},
                     {"us_p10", figure.us_p10}, {"us_p90", figure.us_p90},
                     {"tops", figure.tops},     {"gbps", figure.gbps}};
  if (figure.roof > 0) row["roof"] = figure.roof;
  for (const KernelBaseline& b : figure.baselines) {
    row["us_" + b.name] = b.us;
    row["x_" + b.name] = b.us / figure.us;
  }
  for (const KernelBaseline& other : figure.others) {
    row["table"].push_back({{"kernel", other.name}, {"us", other.us}});
  }
  return row;
}

void print_figure(const KernelFigure& figure) {
  fmt::print("{:9} {:36} {:9.1f} us {:7.4g} TOPS {:6.0f} GB/s ", figure.group, figure.problem,
             figure.us, figure.tops, figure.gbps);
  if (figure.roof > 0) fmt::print("{:5.1f}% of the roof ", 100 * figure.roof);
  for (const KernelBaseline& b : figure.baselines) {
    fmt::print(" {:5.2f} x {}", b.us / figure.us, b.name);
  }
  fmt::print("  {}\n", figure.kernel);
  for (const KernelBaseline& other : figure.others) {
    fmt::print("{:46} {:9.1f} us  {}\n", "", other.us, other.name);
  }
  std::fflush(stdout);
}

// What is to be measured.
struct KernelWork {
  std::vector<NamedKernels> groups;
  std::vector<KernelSize> sizes;
};

Result<KernelWork> parse_work(const std::vector<std::string>& what) {
  KernelWork work;
  for (const std::string& word : what) {
    const NamedKernels* named = nullptr;
    for (const NamedKernels& group : kKernelGroups) {
      if (group.name == word) named = &group;
    }
    const std::optional<KernelSize> size = parse_size(word);
    if (named == nullptr && !size) {
      return error(ErrorCode::kInvalidArgument,
                   "bench kernels: '{}': neither one of w4a8, w4a4, fp4, w8a8, w4a16, experts, "
                   "attention, rows, reorder, sampling nor a size NxKxM of up to {} elements",
                   word, kMostElements);
    }
    if (named != nullptr) work.groups.push_back(*named);
    if (size) work.sizes.push_back(*size);
  }
  if (work.groups.empty()) work.groups.assign(std::begin(kKernelGroups), std::end(kKernelGroups));
  return work;
}

// Prints figures as they come, or keeps them for one JSON object.
class KernelReport {
 public:
  explicit KernelReport(bool json) : json_(json) {}

  Status add(const KernelFigure& figure) {
    if (json_) {
      rows_.push_back(figure_json(figure));
    } else {
      print_figure(figure);
    }
    return check_interrupted();
  }
  void finish(OrderedJson head) {
    if (!json_) return;
    head["rows"] = rows_;
    print_json(head);
  }

 private:
  bool json_;
  OrderedJson rows_ = OrderedJson::array();
};

Status bench_cuda(const BenchKernelsArguments& arguments, const KernelWork& work,
                  KernelReport& report) {
  const KernelBenchMachine machine = ATOM_TRY(measure_cuda_machine());
  if (!arguments.json) {
    fmt::print("{}, CUDA {}.{}, up to {:.0f} MHz: copies {:.0f} GB/s, INT8 {:.0f} TOPS at most{}\n",
               machine.device, machine.driver / 1000, machine.driver % 1000 / 10, machine.clock_mhz,
               machine.copy_gbps, machine.int8_tops,
               machine.vendor_found ? "" : "; no cuBLASLt, so no vendor's GEMMs");
  }
  for (const NamedKernels& group : work.groups) {
    ATOM_TRY(
        bench_cuda_kernels(machine,
                           {.group = group.group,
                            .sizes = work.sizes,
                            .samples = static_cast<int>(arguments.samples),
                            .tune = arguments.tune},
                           [&report](const KernelFigure& figure) { return report.add(figure); })
            .with_context(fmt::format("bench kernels {}", group.name)));
  }
  report.finish({{"device", machine.device},
                 {"driver_cuda", machine.driver},
                 {"clock_mhz", machine.clock_mhz},
                 {"copy_gbps", machine.copy_gbps},
                 {"int8_tops", machine.int8_tops},
                 {"vendor", machine.vendor_found},
                 {"samples", arguments.samples}});
  return {};
}

// Linears through the operator interface.
Status bench_operators(const BenchKernelsArguments& arguments, KernelWork work,
                       KernelReport& report) {
  const std::unique_ptr<Backend> backend = ATOM_TRY(make_backend(arguments.device));
  if (arguments.tune) {
    return error(ErrorCode::kInvalidArgument, "bench kernels: --tune is for --device cuda");
  }
  if (work.sizes.empty()) {
    for (const int64_t tokens : {1, 16, 256}) {
      work.sizes.push_back({.rows = 4096, .inputs = 4096, .tokens = tokens});
    }
  }
  std::vector<std::string_view> names;
  for (const NamedKernels& group : work.groups) names.push_back(group.name);
  ATOM_TRY(measure_linears(*backend, names, work.sizes, static_cast<int>(arguments.samples),
                           [&report](const KernelFigure& figure) { return report.add(figure); })
               .with_context("bench kernels"));
  report.finish({{"device", backend->detail()}, {"samples", arguments.samples}});
  return {};
}

Status bench_kernels(const BenchKernelsArguments& arguments) {
  const KernelWork work = ATOM_TRY(parse_work(arguments.what));
  KernelReport report(arguments.json);
  return arguments.device == "cuda" ? bench_cuda(arguments, work, report)
                                    : bench_operators(arguments, work, report);
}

}  // namespace

void add_bench_kernels_command(CLI::App& group, Action& action) {
  CLI::App* command = group.add_subcommand("kernels", "Microseconds of single kernels");
  command->footer(
      "Random data, inputs rotated past L2, medians of CUDA graph replays. Each figure stands\n"
      "beside what gives the same result otherwise, measured in the same process: GEMMs (128\n"
      "INT8 outlier columns, groups of 128) beside the vendor's in FP16, INT8 and FP8, each\n"
      "after a rest of the GPU, so that clocks are the same for all; w4a8 GEMMs\n"
      "of a mixture (two of eight experts a token) beside as many of the vendor's, attention\n"
      "of one new token beside the same with INT8 and F16 caches, the reorder that is fused with\n"
      "its neighbours beside one in kernels of its own, and tokens drawn from rows of logits "
      "beside\n"
      "their argmax. \"2.00 x fp16\" takes half as long.\n"
      "The roof is the copy rate, measured, or the chip's peak for INT8 and FP8 (w4a16: F16),\n"
      "whichever is nearer. Without sizes: 4096x4096 with 16 to 4096 tokens.\n"
      "\n"
      "On other devices: w4a8, w4a4, fp4, w8a8 and w4a16 linears beside F16 ones, by their wall\n"
      "clock.\n"
      "\n"
      "Example:\n"
      "  atom bench kernels w4a8 w4a4 22016x4096x64 4096x11008x64 --json");
  auto arguments = std::make_shared<BenchKernelsArguments>();
  command
      ->add_option("WHAT", arguments->what,
                   "w4a8, w4a4, fp4, w8a8, w4a16, experts, attention, rows, reorder, sampling\n"
                   "(default: all), sizes NxKxM: N x K weights, M tokens")
      ->type_name("");
  command->add_option("--device", arguments->device, "cuda, cpu or ref")
      ->type_name("NAME")
      ->capture_default_str();
  add_count(*command, "--samples", arguments->samples, 1, 10000, "Replays of each");
  command->add_flag("--tune", arguments->tune,
                    "GEMMs: run every kernel of the table, print them, take the fastest");
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->callback(
      [arguments, &action] { action = [arguments] { return bench_kernels(*arguments); }; });
}

}  // namespace atom::cli
