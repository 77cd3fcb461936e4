#include "base/log.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>

namespace atom {
namespace {
std::atomic<LogLevel> threshold{LogLevel::kWarning};
}  // namespace

void set_log_level(LogLevel level) { threshold.store(level, std::memory_order_relaxed); }
bool log_enabled(LogLevel level) { return level >= threshold.load(std::memory_order_relaxed); }

void log_line(LogLevel level, std::string_view line) {
  constexpr const char* kNames[] = {"debug", "info", "warning", "error", "off"};
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto millis =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm local{};
  ::localtime_r(&seconds, &local);
  const std::string text =
      fmt::format("{:02}:{:02}:{:02}.{:03} {}: {}\n", local.tm_hour, local.tm_min, local.tm_sec,
                  millis, kNames[static_cast<size_t>(level)], line);
  std::fwrite(text.data(), 1, text.size(), stderr);  // one call, so that lines do not mix
}

}  // namespace atom
