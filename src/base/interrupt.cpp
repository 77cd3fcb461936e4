#include "base/interrupt.h"

#include <unistd.h>

#include <atomic>
#include <csignal>

namespace atom {
namespace {

std::atomic<bool> flag{false};

void on_signal(int number) {
  if (flag.exchange(true)) ::_exit(128 + number);
}

}  // namespace

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return flag.load(std::memory_order_relaxed); }

void clear_interrupt() { flag.store(false, std::memory_order_relaxed); }

Status check_interrupted() {
  if (!interrupted()) return {};
  return error(ErrorCode::kCancelled, "interrupted");
}

}  // namespace atom
