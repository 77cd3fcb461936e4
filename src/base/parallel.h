// One way to use the machine's cores: a loop over independent items. Results never depend on the
// number of threads, because an item is computed whole by one of them.
#pragma once

#include <cstdint>

namespace atom {

// The cores this process may use (its affinity mask, which containers narrow).
int available_threads();
// Threads that parallel_for uses from here on; 0 means available_threads().
void set_thread_count(int count);
int thread_count();

// Calls body(i) for i in [0, count), in any order. Nested calls run serially in their thread.
template <class Body>
void parallel_for(int64_t count, Body&& body) {
  if (count <= 1) {
    if (count == 1) body(int64_t{0});
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(thread_count())
  for (int64_t i = 0; i < count; ++i) body(i);
}

}  // namespace atom
