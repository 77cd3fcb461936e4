#include "base/interrupt.h"

#include <time.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>

namespace atom {
namespace {

constexpr int64_t kEchoNanoseconds = 500'000'000;

std::atomic<int64_t> first_signal{0};  // when it came; 0: none has

void on_signal(int number) {
  struct timespec time {};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  const int64_t now = int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  int64_t first = 0;
  if (first_signal.compare_exchange_strong(first, now)) return;
  if (now - first >= kEchoNanoseconds) ::_exit(128 + number);
}

}  // namespace

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return first_signal.load(std::memory_order_relaxed) != 0; }

void clear_interrupt() { first_signal.store(0, std::memory_order_relaxed); }

Status check_interrupted() {
  if (!interrupted()) return {};
  return error(ErrorCode::kCancelled, "interrupted");
}

}  // namespace atom
