// Zeroed memory from the system, which takes room only where it is touched.
#pragma once

#include <cstdint>
#include <memory>

namespace atom::cpu {

// Null where the system has none.
std::shared_ptr<uint8_t> map_zeroed(int64_t bytes);

// Memory for weights: mapped in large pieces, with huge pages where the system gives them, and
// handed out in order. A pass over a model's weights then spends less time on finding pages. A
// piece goes back once nothing in it is used.
class HugePageArena {
 public:
  // Aligned to a cache line; null where memory does not suffice.
  std::shared_ptr<uint8_t> allocate(int64_t bytes);

 private:
  std::shared_ptr<uint8_t> piece_;
  int64_t used_ = 0;
};

}  // namespace atom::cpu
