#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace atom {

using Clock = std::chrono::steady_clock;

std::string format_duration(double seconds) {
  if (seconds < 60) return fmt::format("{:.1f}s", seconds);
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  if (whole < 3600) return fmt::format("{}m {:02}s", whole / 60, whole % 60);
  return fmt::format("{}h {:02}m", whole / 3600, whole / 60 % 60);
}

Progress::Progress(std::string label, int64_t total, bool enabled)
    : label_(std::move(label)),
      total_(std::max<int64_t>(total, 1)),
      enabled_(enabled),
      terminal_(::isatty(STDERR_FILENO) != 0),
      start_(Clock::now()) {
  draw(false);
}

Progress::~Progress() { draw(true); }

void Progress::advance(int64_t units) {
  done_ = std::min(done_ + units, total_);
  draw(false);
}

void Progress::note(std::string text) { note_ = std::move(text); }

void Progress::draw(bool last) {
  if (!enabled_) return;
  const auto now = Clock::now();
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double share = static_cast<double>(done_) / static_cast<double>(total_);
  const std::string time =
      done_ == total_ || last ? fmt::format("took {}", format_duration(elapsed))
      : done_ == 0            ? std::string("estimating")
                   : fmt::format("{} left", format_duration(elapsed * (1 - share) / share));
  if (terminal_) {
    if (!last && now - drawn_ < std::chrono::milliseconds(80)) return;
    constexpr int kWidth = 30;
    const int filled = static_cast<int>(share * kWidth);
    std::string line = fmt::format(
        "\r\033[2K{} [{}{}] {:3.0f}% {} {}", label_, std::string(static_cast<size_t>(filled), '#'),
        std::string(static_cast<size_t>(kWidth - filled), '.'), share * 100, time, note_);
    if (last) line += '\n';
    std::fwrite(line.data(), 1, line.size(), stderr);
    drawn_ = now;
    return;
  }
  const auto tenths = static_cast<int64_t>(share * 10);
  if (tenths == tenths_shown_ || (last && tenths_shown_ == 10)) return;
  tenths_shown_ = tenths;
  fmt::print(stderr, "{} {:.0f}% {} {}\n", label_, share * 100, time, note_);
}

}  // namespace atom
