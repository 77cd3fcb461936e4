#include "backend/cuda/runtime/host_arrays.h"

#include <bit>
#include <cstring>
#include <numeric>
#include <vector>

namespace atom::cuda {
namespace {

uint64_t checksum(std::span<const std::byte> bytes) {
  constexpr size_t kWhole = size_t{64} << 10, kPlaces = 8192;
  const size_t words = bytes.size() / sizeof(uint32_t);
  const size_t step = bytes.size() <= kWhole ? 1 : words / kPlaces;
  uint64_t sum = words;
  for (size_t i = 0; i < words; i += step) {
    uint32_t word;
    std::memcpy(&word, bytes.data() + i * sizeof(word), sizeof(word));
    sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
    sum ^= sum >> 29;
  }
  return sum;
}

}  // namespace

template <class Make>
Result<const void*> HostArrays::find(std::map<Key, Entry>& entries, Key key, uint64_t sum,
                                     const Make& make) {
  const auto found = entries.find(key);
  if (found != entries.end() && found->second.checksum == sum) {
    return static_cast<const void*>(found->second.data.data());
  }
  const std::span<const std::byte> bytes = make();
  Entry& entry = entries[key];
  if (entry.data.size() != static_cast<int64_t>(bytes.size())) {
    entry.data = ATOM_TRY(DeviceArray<uint8_t>::allocate(static_cast<int64_t>(bytes.size())));
  }
  // Waits for kernels that still read the old contents.
  ATOM_CUDA_CHECK(
      cudaMemcpy(entry.data.data(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice));
  entry.checksum = sum;
  return static_cast<const void*>(entry.data.data());
}

Result<const float*> HostArrays::floats(std::span<const float> host) {
  if (host.empty()) return static_cast<const float*>(nullptr);
  const std::span<const std::byte> bytes = std::as_bytes(host);
  return static_cast<const float*>(
      ATOM_TRY(find(plain_, {host.data(), static_cast<int64_t>(bytes.size())}, checksum(bytes),
                    [&] { return bytes; })));
}

Result<const int32_t*> HostArrays::ints(std::span<const int32_t> host) {
  if (host.empty()) return static_cast<const int32_t*>(nullptr);
  const std::span<const std::byte> bytes = std::as_bytes(host);
  return static_cast<const int32_t*>(
      ATOM_TRY(find(plain_, {host.data(), static_cast<int64_t>(bytes.size())}, checksum(bytes),
                    [&] { return bytes; })));
}

Result<const uint16_t*> HostArrays::permutation16(std::span<const int32_t> host, int64_t size) {
  std::vector<uint16_t> narrow(static_cast<size_t>(size));
  return static_cast<const uint16_t*>(
      ATOM_TRY(find(permutations_, {host.data(), size}, checksum(std::as_bytes(host)), [&] {
        if (host.empty()) {
          std::iota(narrow.begin(), narrow.end(), uint16_t{0});
        } else {
          for (size_t i = 0; i < narrow.size(); ++i) narrow[i] = static_cast<uint16_t>(host[i]);
        }
        return std::as_bytes(std::span(std::as_const(narrow)));
      })));
}

Result<const float*> HostArrays::gathered(std::span<const float> values,
                                          std::span<const int32_t> perm) {
  if (values.empty() || perm.empty()) return floats(values);
  const Key key = {values.data(), static_cast<int64_t>(std::bit_cast<intptr_t>(perm.data()))};
  const uint64_t sum = checksum(std::as_bytes(values)) * 31 + checksum(std::as_bytes(perm));
  std::vector<float> ordered;
  return static_cast<const float*>(ATOM_TRY(find(gathered_, key, sum, [&] {
    for (const int32_t source : perm) ordered.push_back(values[static_cast<size_t>(source)]);
    return std::as_bytes(std::span(std::as_const(ordered)));
  })));
}

}  // namespace atom::cuda
