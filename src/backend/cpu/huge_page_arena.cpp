#include "backend/cpu/huge_page_arena.h"

#include <sys/mman.h>

#include <cstddef>

namespace atom::cpu {
namespace {

constexpr int64_t kCacheLineBytes = 64;
constexpr int64_t kHugePage = int64_t{2} << 20;
constexpr int64_t kPieceBytes = 16 * kHugePage;

int64_t up_to(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

std::shared_ptr<uint8_t> map_huge(int64_t bytes) {
  // Room to begin on a huge page's boundary; what is left out is never touched.
  const std::shared_ptr<uint8_t> mapped = map_zeroed(bytes + kHugePage);
  if (mapped == nullptr) return nullptr;
  const auto address = reinterpret_cast<uintptr_t>(mapped.get());
  uint8_t* aligned = mapped.get() + (kHugePage - address % kHugePage) % kHugePage;
  // Advice alone: a system without huge pages ignores it.
  (void)::madvise(aligned, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  return {mapped, aligned};
}

}  // namespace

std::shared_ptr<uint8_t> map_zeroed(int64_t bytes) {
  const auto size = static_cast<size_t>(bytes);
  void* mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  return {static_cast<uint8_t*>(mapped), [size](uint8_t* p) { ::munmap(p, size); }};
}

std::shared_ptr<uint8_t> HugePageArena::allocate(int64_t bytes) {
  bytes = up_to(bytes, kCacheLineBytes);
  if (bytes > kPieceBytes / 2) return map_huge(bytes);
  if (piece_ == nullptr || used_ + bytes > kPieceBytes) {
    piece_ = map_huge(kPieceBytes);
    used_ = 0;
    if (piece_ == nullptr) return nullptr;
  }
  const int64_t at = used_;
  used_ += bytes;
  return {piece_, piece_.get() + at};
}

}  // namespace atom::cpu
