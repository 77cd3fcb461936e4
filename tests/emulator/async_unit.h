// What runs behind a CTA's threads: mbarriers, bulk copies and sm_100's tensor cores, as the PTX
// ISA documents them. Operations do not happen when they are issued but later, in an order drawn
// from those that the ISA allows: what a kernel does not wait for comes late. A rule that is broken
// aborts the program with its name.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "base/random.h"

namespace atom::emulator {

class AsyncUnit {
 public:
  // seed: decides the order.
  AsyncUnit(uint8_t* shared, int64_t shared_bytes, uint64_t seed);

  // Some of what was issued happens; false where nothing is left.
  bool advance();
  // The CTA ends: nothing may be on its way or allocated.
  void finish() const;

  // --- mbarriers, by their address in shared memory
  void init_barrier(uint32_t barrier, uint32_t arrivals);
  void arrive(uint32_t barrier);
  void expect(uint32_t barrier, uint32_t bytes);  // and arrive
  void wait(uint32_t barrier, uint32_t parity);
  void bulk_copy(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier);

  // --- the running thread's plain copies of 16 bytes
  void copy16(uint32_t to, const void* from);
  void commit_copies();
  void wait_for_copies(int pending);  // until all but so many groups are here

  // --- tensor memory and sm_100's tensor cores
  void allocate(uint32_t to, int columns);  // one thread
  void free(uint32_t columns, int count);
  void fence_before();
  void fence_after();
  void commit(uint32_t barrier);
  void copy_scales(uint32_t columns, uint64_t from);
  void multiply_nvfp4(uint32_t sums, uint64_t a, uint64_t b, uint32_t product, uint32_t a_scales,
                      uint32_t b_scales, bool add);
  void multiply_s8(uint32_t sums, uint64_t a, uint64_t b, uint32_t product, bool add);
  // This thread's lane of `count` columns.
  void load(uint32_t columns, uint32_t* values, int count);

 private:
  static constexpr int kLanes = 128, kColumns = 512, kWarp = 32;
  struct Barrier {
    uint32_t arrivals, missing;
    int64_t bytes;  // expected, but not yet here
    uint32_t phase;
  };
  enum class Kind : uint8_t { kBulkCopy, kCopyScales, kMultiplyNvFp4, kMultiplyS8, kCommit };
  struct Operation {
    Kind kind = Kind::kCommit;
    unsigned thread = 0;
    uint32_t to = 0;  // shared memory, a column, or the barrier of a commit
    const void* global = nullptr;
    uint32_t bytes = 0, barrier = 0;  // of a bulk copy
    uint64_t a = 0, b = 0;            // matrices in shared memory
    uint32_t product = 0, a_scales = 0, b_scales = 0;
    bool add = false;
  };
  struct Copy16 {
    uint32_t to;
    const void* from;
  };
  // A thread's use of tensor memory, on both sides of a wait.
  struct Order {
    bool waited = false;  // since its last fence_after()
    bool loaded = false;  // since its last fence_before()
  };

  Barrier& barrier_at(uint32_t address);
  static void complete(Barrier& barrier);
  bool may_happen(size_t i) const;
  void happen(const Operation& op);
  void issue(Operation op);
  void check_columns(uint32_t columns, int count) const;
  void copy_scales_now(const Operation& op);
  void multiply_nvfp4_now(const Operation& op);
  void multiply_s8_now(const Operation& op);
  std::vector<uint8_t> rows_of(uint64_t matrix, int rows) const;
  uint32_t& word(int lane, uint32_t column) {
    return tensor_memory_[static_cast<size_t>(lane * kColumns) + column];
  }

  uint8_t* shared_;
  int64_t shared_bytes_;
  Random random_;
  std::map<uint32_t, Barrier> barriers_;
  std::vector<Operation> operations_;  // in the order of issue
  std::vector<uint32_t> tensor_memory_;
  std::vector<Order> order_;                             // of each thread
  std::vector<std::deque<std::vector<Copy16>>> copies_;  // of each thread, groups, the last open
  uint32_t first_column_ = 0;
  int columns_ = 0;  // allocated
};

// Of the running CTA.
AsyncUnit& async_unit();

}  // namespace atom::emulator
