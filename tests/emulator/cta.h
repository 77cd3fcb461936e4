// CTAs of a kernel on the CPU, one after another. A CTA's threads are fibers: one runs until it
// waits, so that a kernel needs no locks here and a test is the same every time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace atom::emulator {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

// Runs kernel() in every thread of every CTA of the grid, a multiple of 32 of them a CTA. Shared
// memory begins at a multiple of 1024, as garbage. A CTA whose threads all wait aborts the program.
void run_grid(Index grid, int threads, int64_t shared_bytes, const std::function<void()>& kernel);

// --- of the running thread
Index thread_index();
Index block_index();
uint8_t* shared_memory();  // of its CTA
int64_t shared_bytes();
// Others run until the condition holds.
void wait_until(std::function<bool()> condition);
// All threads of the CTA, or of the warp, come here.
void sync_threads();
void sync_warp();
// The values of all lanes of the warp, which come here; they stay until a lane is two such further.
const void* exchange(const void* mine, size_t bytes);
template <class T>
const T* exchange(const T& mine) {
  return static_cast<const T*>(exchange(&mine, sizeof(T)));
}

}  // namespace atom::emulator
