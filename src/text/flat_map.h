// Two small open-addressing tables that BPE looks things up in: token text -> id, and a pair of ids
// -> merge. Both are filled once and then only read.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace atom {

inline uint64_t mix_hash(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

inline uint64_t hash_bytes(std::string_view text) {
  uint64_t hash = 0x9e3779b97f4a7c15u ^ text.size();
  const char* p = text.data();
  size_t left = text.size();
  while (left > 8) {
    uint64_t word = 0;
    std::memcpy(&word, p, 8);
    hash = mix_hash(hash ^ word, 0xd6e8feb86659fd93u);
    p += 8;
    left -= 8;
  }
  uint64_t word = 0;
  if (left >= 4) {  // two reads that overlap; faster than a copy of unknown size
    uint32_t low = 0;
    uint32_t high = 0;
    std::memcpy(&low, p, 4);
    std::memcpy(&high, p + left - 4, 4);
    word = low | static_cast<uint64_t>(high) << 32;
  } else if (left > 0) {
    word = static_cast<uint64_t>(static_cast<uint8_t>(p[0])) |
           static_cast<uint64_t>(static_cast<uint8_t>(p[left / 2])) << 8 |
           static_cast<uint64_t>(static_cast<uint8_t>(p[left - 1])) << 16;
  }
  return mix_hash(hash ^ word, 0xa0761d6478bd642fu);
}

// Strings by id, in one block of memory.
class StringTable {
 public:
  void push_back(std::string_view text) {
    bytes_.append(text);
    ends_.push_back(bytes_.size());
  }
  std::string_view operator[](size_t i) const {
    const size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(bytes_).substr(begin, ends_[i] - begin);
  }
  size_t size() const { return ends_.size(); }

 private:
  std::string bytes_;
  std::vector<size_t> ends_;
};

// Finds ids by text in a StringTable, which must outlive the calls and is passed to each.
class TextIndex {
 public:
  void reserve(size_t count) { slots_.assign(std::bit_ceil(2 * count + 8), {}); }
  // False, and nothing inserted, where the text is there already. REQUIRES: room from reserve().
  bool insert(const StringTable& strings, int32_t id) {
    const std::string_view text = strings[static_cast<size_t>(id)];
    const uint64_t hash = hash_bytes(text);
    size_t at = hash & (slots_.size() - 1);
    for (; slots_[at].id >= 0; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at].tag == tag(hash) && strings[static_cast<size_t>(slots_[at].id)] == text) {
        return false;
      }
    }
    slots_[at] = {tag(hash), id};
    return true;
  }
  // The id of a text, or -1.
  int32_t find(const StringTable& strings, std::string_view text) const {
    if (slots_.empty()) return -1;
    const uint64_t hash = hash_bytes(text);
    for (size_t at = hash & (slots_.size() - 1); slots_[at].id >= 0;
         at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at].tag == tag(hash) && strings[static_cast<size_t>(slots_[at].id)] == text) {
        return slots_[at].id;
      }
    }
    return -1;
  }

 private:
  struct Slot {
    uint32_t tag = 0;
    int32_t id = -1;
  };
  static uint32_t tag(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }
  std::vector<Slot> slots_;
};

// (left, right) -> (rank, result).
class PairMap {
 public:
  struct Value {
    uint32_t rank = UINT32_MAX;  // of no merge
    int32_t result = -1;
  };
  void reserve(size_t count) { slots_.assign(std::bit_ceil(2 * count + 8), {}); }
  // Sets or overwrites. REQUIRES: room from reserve().
  void set(int32_t left, int32_t right, Value value) {
    const uint64_t wanted = key(left, right);
    size_t at = start(wanted);
    while (slots_[at].key != kEmpty && slots_[at].key != wanted) {
      at = (at + 1) & (slots_.size() - 1);
    }
    slots_[at] = {wanted, value};
  }
  Value find(int32_t left, int32_t right) const {
    const uint64_t wanted = key(left, right);
    for (size_t at = start(wanted); slots_[at].key != kEmpty; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at].key == wanted) return slots_[at].value;
    }
    return {};
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;  // no pair: ids are not negative
  struct Slot {
    uint64_t key = kEmpty;
    Value value;
  };
  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t start(uint64_t key) const {
    return mix_hash(key ^ 0x9e3779b97f4a7c15u, 0xd6e8feb86659fd93u) & (slots_.size() - 1);
  }
  std::vector<Slot> slots_;
};

}  // namespace atom
