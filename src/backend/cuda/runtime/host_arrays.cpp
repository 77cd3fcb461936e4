#include "backend/cuda/runtime/host_arrays.h"

#include <bit>
#include <cstring>
#include <numeric>
#include <vector>

namespace atom::cuda {
namespace {

// Of a multiple of four bytes.
uint64_t checksum(std::span<const std::byte> bytes) {
  // Sums side by side, since each multiplication waits for the one before it.
  constexpr size_t kSums = 8, kWhole = size_t{64} << 10, kPlaces = 1024;
  uint64_t sums[kSums] = {bytes.size()};
  const auto add = [&](size_t sum, const std::byte* from, size_t size) {
    uint64_t word = 0;
    std::memcpy(&word, from, size);
    sums[sum] = (sums[sum] ^ word) * 0x9e3779b97f4a7c15u;
    sums[sum] ^= sums[sum] >> 29;
  };
  constexpr size_t kWord = sizeof(uint64_t);
  const size_t words = bytes.size() / kWord;
  const size_t step = bytes.size() <= kWhole ? 1 : words / kPlaces;
  size_t i = 0;
  for (; i + (kSums - 1) * step < words; i += kSums * step) {
    for (size_t k = 0; k < kSums; ++k) add(k, bytes.data() + (i + k * step) * kWord, kWord);
  }
  for (; i < words; i += step) add(0, bytes.data() + i * kWord, kWord);
  if (bytes.size() % kWord != 0) add(1, bytes.data() + words * kWord, bytes.size() % kWord);
  uint64_t all = 0;
  for (const uint64_t sum : sums) all = (all ^ sum) * 0x9e3779b97f4a7c15u;
  return all;
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
