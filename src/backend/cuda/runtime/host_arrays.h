// Host arrays that operators name by span (norm weights, permutations, RoPE tables), kept in GPU
// memory from their first use on.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>

#include "backend/cuda/runtime/device.h"

namespace atom::cuda {

// The callers keep such arrays alive and unchanged while they use them; a new array may come to lie
// where an old one was. So a copy is known by its address and size and by a checksum, over all of a
// short array and over many places of a long one.
class HostArrays {
 public:
  // Null for empty spans. Fails when GPU memory is short.
  Result<const float*> floats(std::span<const float> host);
  Result<const int32_t*> ints(std::span<const int32_t> host);
  // A permutation in 16 bits; empty: the identity over `size`. REQUIRES: size <= 65536.
  Result<const uint16_t*> permutation16(std::span<const int32_t> host, int64_t size);
  // values[perm[0]], values[perm[1]] ...; the values themselves where perm is empty. Null without
  // values.
  Result<const float*> gathered(std::span<const float> values, std::span<const int32_t> perm);

 private:
  struct Entry {
    uint64_t checksum = 0;
    DeviceArray<uint8_t> data;
  };
  using Key = std::pair<const void*, int64_t>;

  // The device copy of what make() returns, made anew when the checksum of its sources changed.
  template <class Make>
  Result<const void*> find(std::map<Key, Entry>& entries, Key key, uint64_t checksum,
                           const Make& make);

  std::map<Key, Entry> plain_, permutations_;
  std::map<Key, Entry> gathered_;  // by both addresses
};

}  // namespace atom::cuda
