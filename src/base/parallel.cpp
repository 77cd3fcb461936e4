#include "base/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>

namespace atom {
namespace {
std::atomic<int> configured{0};
}  // namespace

int available_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

void set_thread_count(int count) { configured.store(std::max(0, count)); }

int thread_count() {
  const int count = configured.load(std::memory_order_relaxed);
  if (count > 0) return count;
  static const int available = available_threads();
  return available;
}

}  // namespace atom
