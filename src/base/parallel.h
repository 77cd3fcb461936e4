// One way to use the machine's cores: a loop over independent items. Results never depend on the
// number of threads, because an item is computed whole by one of them.
#pragma once

#include <cstdint>
#include <type_traits>

namespace atom {

// The cores this process may use (its affinity mask, which containers narrow).
int available_threads();
// Threads that parallel_for uses from here on; 0 means available_threads().
void set_thread_count(int count);
int thread_count();

namespace detail {
// Calls item(context, i) for i in [0, count).
void run_parallel(int64_t count, void (*item)(void* context, int64_t i), void* context);
}  // namespace detail

// Calls body(i) for i in [0, count), in any order. Nested calls, and calls while another thread's
// loop runs, run serially in their thread.
template <class Body>
void parallel_for(int64_t count, Body&& body) {
  using Callable = std::remove_reference_t<Body>;
  detail::run_parallel(
      count, [](void* context, int64_t i) { (*static_cast<Callable*>(context))(i); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace atom
