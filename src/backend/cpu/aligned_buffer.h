// Memory for kernels: aligned to a cache line, zeroed, no exceptions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>

#include "backend/cpu/huge_page_arena.h"

namespace atom::cpu {

inline constexpr size_t kCacheLine = 64;

// An array of trivial T, movable. Empty until allocate() succeeds.
template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  AlignedBuffer(AlignedBuffer&&) = default;
  AlignedBuffer& operator=(AlignedBuffer&&) = default;

  // `count` zeroed elements in place of what was there; false when memory does not suffice. Large
  // arrays take memory only where they are touched; from the arena when there is one.
  [[nodiscard]] bool allocate(int64_t count, HugePageArena* arena = nullptr) {
    data_.reset();
    size_ = 0;
    constexpr int64_t kMost = (std::numeric_limits<int64_t>::max() / 2) / int64_t{sizeof(T)};
    if (count < 0 || count > kMost) return false;
    const size_t bytes =
        (static_cast<size_t>(count) * sizeof(T) + kCacheLine - 1) / kCacheLine * kCacheLine;
    if (bytes == 0) return true;
    const std::shared_ptr<uint8_t> memory = obtain(bytes, arena);
    if (memory == nullptr) return false;
    data_ = std::shared_ptr<T>(memory, reinterpret_cast<T*>(memory.get()));
    size_ = count;
    return true;
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](int64_t i) { return data_.get()[i]; }
  const T& operator[](int64_t i) const { return data_.get()[i]; }
  int64_t size() const { return size_; }
  int64_t bytes() const { return size_ * static_cast<int64_t>(sizeof(T)); }
  bool empty() const { return size_ == 0; }

 private:
  static constexpr size_t kLargeBytes = size_t{1} << 17;

  static std::shared_ptr<uint8_t> obtain(size_t bytes, HugePageArena* arena) {
    if (bytes >= kLargeBytes) {
      const auto size = static_cast<int64_t>(bytes);
      return arena != nullptr ? arena->allocate(size) : map_zeroed(size);
    }
    void* memory = std::aligned_alloc(kCacheLine, bytes);
    if (memory == nullptr) return nullptr;
    std::memset(memory, 0, bytes);
    return {static_cast<uint8_t*>(memory), [](uint8_t* p) { std::free(p); }};
  }

  std::shared_ptr<T> data_;
  int64_t size_ = 0;
};

// Memory of the calling thread that lives on between calls: at least `count` elements, contents
// undefined. One buffer for each distinct Tag and T.
template <class T, class Tag>
T* thread_scratch(int64_t count) {
  static thread_local AlignedBuffer<T> buffer;
  if (buffer.size() < count && !buffer.allocate(count)) std::abort();
  return buffer.data();
}

constexpr int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace atom::cpu
