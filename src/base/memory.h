// How much memory this process may still take.
#pragma once

#include <cstdint>

namespace atom {

// Bytes that the system could hand out now without swapping, narrowed by the control group that a
// container runs in. 0 where the system does not say.
int64_t available_memory_bytes();

// Gives back to the system what the allocator keeps although nobody uses it.
void return_free_memory();

}  // namespace atom
