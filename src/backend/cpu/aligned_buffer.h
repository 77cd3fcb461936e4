// Memory for kernels: aligned to a cache line, zeroed by the system, no exceptions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>

namespace atom::cpu {

inline constexpr size_t kCacheLine = 64;

// An array of trivial T, movable. Empty until allocate() succeeds.
template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;

  // `count` zeroed elements in place of what was there; false when memory does not suffice.
  [[nodiscard]] bool allocate(int64_t count) {
    data_.reset();
    size_ = 0;
    constexpr int64_t kMost = (std::numeric_limits<int64_t>::max() / 2) / int64_t{sizeof(T)};
    if (count < 0 || count > kMost) return false;
    const size_t bytes =
        (static_cast<size_t>(count) * sizeof(T) + kCacheLine - 1) / kCacheLine * kCacheLine;
    if (bytes == 0) return true;
    data_.reset(static_cast<T*>(std::aligned_alloc(kCacheLine, bytes)));
    if (data_ == nullptr) return false;
    std::memset(static_cast<void*>(data_.get()), 0, bytes);
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
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
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
