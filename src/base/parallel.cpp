#include "base/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace atom {
namespace {

std::atomic<int> configured{0};

// True in a thread that is inside a parallel_for.
thread_local bool inside_loop = false;

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Spins until done() or for about as long as a thread takes to be woken; true when done.
template <class Done>
bool spin_until(Done done) {
  constexpr std::chrono::microseconds kLongest{50};
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < 16; ++i) {
      if (done()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() - start < kLongest);
  return done();
}

// Threads that wait for loops. A decoder step is hundreds of loops of a few microseconds each, so
// workers spin between them and sleep only when none comes. Each thread takes the items of a run of
// its own one by one, in order, so that it streams through memory, and then helps with the runs of
// others: one that the system keeps waiting holds up nobody.
class Pool {
 public:
  static Pool& instance() {
    static Pool pool;
    return pool;
  }

  void run(int64_t count, void (*item)(void*, int64_t), void* context) {
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) {
      for (int64_t i = 0; i < count; ++i) item(context, i);
      return;
    }
    const int64_t threads = std::min<int64_t>({thread_count(), kMostThreads, count});
    grow(threads - 1);
    threads_.store(threads, std::memory_order_relaxed);
    item_ = item;
    context_ = context;
    pending_.store(count, std::memory_order_relaxed);
    for (int64_t i = 0; i < threads; ++i) {
      const int64_t begin = i * count / threads;
      runs_[i].end = (i + 1) * count / threads;
      runs_[i].unclaimed.store(runs_[i].end - begin, std::memory_order_seq_cst);
    }
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      wakeups_.fetch_add(1);
      wakeups_.notify_all();
    }
    work(0);
    const auto finished = [&] { return pending_.load(std::memory_order_acquire) == 0; };
    while (!spin_until(finished)) std::this_thread::yield();
  }

  ~Pool() {
    stop_.store(true);
    wakeups_.fetch_add(1);
    wakeups_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

 private:
  static constexpr int64_t kMostThreads = 256;

  // Items [end - unclaimed, end) of a loop are left.
  struct alignas(64) Run {
    std::atomic<int64_t> unclaimed{0};
    int64_t end = 0;
  };

  void grow(int64_t workers) {
    while (static_cast<int64_t>(workers_.size()) < workers) {
      workers_.emplace_back(
          [this, own = workers_.size() + 1] { serve(static_cast<int64_t>(own)); });
    }
  }

  // Claims and runs items until none is left, those of run `own` first. A claim pins the loop: it
  // cannot end, nor its fields change, before the claimed item has run.
  void work(int64_t own) {
    const int64_t threads = threads_.load(std::memory_order_relaxed);
    for (int64_t i = 0; i < threads; ++i) {
      Run& run = runs_[(own + i) % threads];
      int64_t left = run.unclaimed.load(std::memory_order_acquire);
      while (left > 0) {
        if (!run.unclaimed.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel,
                                                 std::memory_order_acquire)) {
          continue;
        }
        inside_loop = true;
        item_(context_, run.end - left);
        inside_loop = false;
        pending_.fetch_sub(1, std::memory_order_release);
        left = run.unclaimed.load(std::memory_order_acquire);
      }
    }
  }

  // A worker: it comes for the items of its own run, which every loop that wants it has.
  void serve(int64_t own) {
    const auto wanted = [&] {
      return runs_[own].unclaimed.load(std::memory_order_seq_cst) > 0 ||
             stop_.load(std::memory_order_relaxed);
    };
    while (!stop_.load(std::memory_order_relaxed)) {
      if (spin_until(wanted)) {
        work(own);
        continue;
      }
      const uint32_t seen = wakeups_.load();
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      if (!wanted()) wakeups_.wait(seen);
      sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    }
  }

  std::mutex mutex_;  // held by the thread whose loop runs
  std::vector<std::thread> workers_;
  std::atomic<bool> stop_{false};

  void (*item_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  std::atomic<int64_t> threads_{1};              // that the loop is cut for
  Run runs_[kMostThreads];                       // the looping thread's, then the workers'
  alignas(64) std::atomic<int64_t> pending_{0};  // items that have not run to their end
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<uint32_t> wakeups_{0};
};

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

void detail::run_parallel(int64_t count, void (*item)(void*, int64_t), void* context) {
  if (count > 1 && !inside_loop && thread_count() > 1) {
    Pool::instance().run(count, item, context);
    return;
  }
  for (int64_t i = 0; i < count; ++i) item(context, i);
}

}  // namespace atom
