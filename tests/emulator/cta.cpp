#include "emulator/cta.h"

#include <ucontext.h>

#include <array>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "base/check.h"
#include "emulator/async_unit.h"

namespace atom::emulator {
namespace {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = size_t{256} << 10;
constexpr int64_t kAlignment = 1024;  // of shared memory

struct Fiber {
  ucontext_t context = {};
  std::unique_ptr<uint8_t[]> stack{new uint8_t[kStackBytes]};
  std::function<bool()> ready;  // empty: nothing is waited for
  bool alive = false;
};

// Threads that have come to a barrier, and how often it has let them through.
struct Gathering {
  int here = 0;
  int64_t passed = 0;
};

struct Warp {
  Gathering gathering;
  // What lanes exchange, for even and for odd exchanges: a lane may be one ahead of another.
  std::array<std::vector<uint8_t>, 2> slots;
};

class Cta {
 public:
  Cta(Index block, int threads, int64_t shared_bytes, const std::function<void()>& kernel,
      uint64_t seed)
      : block_(block),
        kernel_(kernel),
        shared_bytes_(shared_bytes),
        shared_(static_cast<uint8_t*>(
            ::operator new (static_cast<size_t>(shared_bytes), std::align_val_t{kAlignment}))),
        fibers_(static_cast<size_t>(threads)),
        warps_(static_cast<size_t>(threads / kWarp)),
        async_(shared_, shared_bytes, seed) {
    for (int64_t i = 0; i < shared_bytes; ++i) shared_[i] = 0xff;
  }
  ~Cta() { ::operator delete (shared_, std::align_val_t{kAlignment}); }
  Cta(const Cta&) = delete;
  Cta& operator=(const Cta&) = delete;

  void run(void (*entry)()) {
    for (Fiber& fiber : fibers_) {
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStackBytes;
      fiber.context.uc_link = &scheduler_;
      makecontext(&fiber.context, entry, 0);
      fiber.alive = true;
    }
    for (int alive = threads(); alive > 0;) {
      bool progress = false;
      for (thread_ = 0; thread_ < threads(); ++thread_) {
        Fiber& fiber = running();
        if (!fiber.alive || (fiber.ready && !fiber.ready())) continue;
        fiber.ready = nullptr;
        swapcontext(&scheduler_, &fiber.context);
        if (!fiber.alive) --alive;
        progress = true;
      }
      progress |= async_.advance();
      ATOM_CHECK(progress, "a CTA whose threads all wait");
    }
    async_.finish();
  }
  void run_kernel() {
    kernel_();
    running().alive = false;
  }
  void wait_until(std::function<bool()> condition) {
    if (condition()) return;
    Fiber& fiber = running();
    fiber.ready = std::move(condition);
    swapcontext(&fiber.context, &scheduler_);
  }
  void gather(Gathering& at, int count) {
    const int64_t before = at.passed;
    if (++at.here == count) {
      at.here = 0;
      ++at.passed;
    }
    wait_until([&at, before] { return at.passed != before; });
  }

  const void* exchange(const void* mine, size_t bytes) {
    Warp& w = warp();
    std::vector<uint8_t>& slots = w.slots[static_cast<size_t>(w.gathering.passed % 2)];
    slots.resize(kWarp * bytes);
    std::memcpy(slots.data() + static_cast<size_t>(thread_ % kWarp) * bytes, mine, bytes);
    gather(w.gathering, kWarp);
    return slots.data();
  }

  int threads() const { return static_cast<int>(fibers_.size()); }
  int thread() const { return thread_; }
  Index block() const { return block_; }
  uint8_t* shared() const { return shared_; }
  int64_t shared_bytes() const { return shared_bytes_; }
  Gathering& everybody() { return everybody_; }
  Warp& warp() { return warps_[static_cast<size_t>(thread_ / kWarp)]; }
  AsyncUnit& async() { return async_; }

 private:
  Fiber& running() { return fibers_[static_cast<size_t>(thread_)]; }

  const Index block_;
  const std::function<void()>& kernel_;
  const int64_t shared_bytes_;
  uint8_t* const shared_;
  std::vector<Fiber> fibers_;
  ucontext_t scheduler_ = {};
  int thread_ = 0;
  Gathering everybody_;
  std::vector<Warp> warps_;
  AsyncUnit async_;
};

// What a kernel asks about itself comes without arguments.
Cta* current = nullptr;

}  // namespace

void run_grid(Index grid, int threads, int64_t shared_bytes, const std::function<void()>& kernel) {
  ATOM_CHECK(grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.y < 65536 && grid.z < 65536 &&
                 threads > 0 && threads % kWarp == 0 && threads <= 1024 && shared_bytes >= 0 &&
                 shared_bytes <= 227 << 10,
             "launch");
  uint64_t number = 0;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        Cta cta({x, y, z}, threads, shared_bytes, kernel, ++number);
        current = &cta;
        cta.run([] { current->run_kernel(); });
      }
    }
  }
  current = nullptr;
}

Index thread_index() { return {static_cast<unsigned>(current->thread()), 0, 0}; }
Index block_index() { return current->block(); }
uint8_t* shared_memory() { return current->shared(); }
int64_t shared_bytes() { return current->shared_bytes(); }
void wait_until(std::function<bool()> condition) { current->wait_until(std::move(condition)); }
void sync_threads() { current->gather(current->everybody(), current->threads()); }
void sync_warp() { current->gather(current->warp().gathering, kWarp); }
const void* exchange(const void* mine, size_t bytes) { return current->exchange(mine, bytes); }
AsyncUnit& async_unit() { return current->async(); }

}  // namespace atom::emulator
