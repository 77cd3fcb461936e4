#include "emulator/async_unit.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "emulator/cta.h"
#include "emulator/small_floats.h"

namespace atom::emulator {
namespace {

constexpr size_t kMostThreads = 1024;
constexpr int kOperandBytes = 32;  // of a row, along K, in one product

// Bits first .. last of a word.
uint64_t field(uint64_t word, int first, int last) {
  return word >> first & ((uint64_t{1} << (last - first + 1)) - 1);
}

// A matrix in shared memory, rows along K ("Shared memory descriptor", "Canonical layouts").
struct Matrix {
  uint64_t start, leading, stride;
  uint64_t width;  // of the swizzle, 16 without one

  explicit Matrix(uint64_t d)
      : start(field(d, 0, 13) * 16), leading(field(d, 16, 29) * 16), stride(field(d, 32, 45) * 16) {
    ATOM_CHECK(field(d, 14, 15) == 0 && field(d, 30, 31) == 0 && field(d, 46, 48) == 1 &&
                   field(d, 49, 51) == 0 && field(d, 52, 60) == 0,
               "constant bits of a matrix descriptor");
    const uint64_t mode = field(d, 61, 63);
    ATOM_CHECK(mode == 0 || mode == 2 || mode == 4 || mode == 6, "swizzle of a matrix descriptor");
    width = mode == 2 ? 128 : mode == 4 ? 64 : mode == 6 ? 32 : 16;
  }
  uint64_t address(uint64_t row, uint64_t byte) const {
    if (width == 16) {
      return start + row / 8 * stride + row % 8 * 16 + byte / 16 * leading + byte % 16;
    }
    ATOM_CHECK(start % width + byte < width, "a row behind its swizzle's width");
    const uint64_t plain = start + row / 8 * stride + row % 8 * width + byte;
    return plain ^ (plain >> 7 & (width / 16 - 1)) << 4;
  }
};

// Element k of a row under its word of four scales.
float scaled(const uint8_t* row, int k, uint32_t scales) {
  return e2m1(uint32_t{row[k / 2]} >> (k % 2 * 4) & 15) * ue4m3(scales >> (k / 16 * 8) & 255);
}

}  // namespace

AsyncUnit::AsyncUnit(uint8_t* shared, int64_t shared_bytes, uint64_t seed)
    : shared_(shared),
      shared_bytes_(shared_bytes),
      random_(seed),
      tensor_memory_(static_cast<size_t>(kLanes * kColumns), std::bit_cast<uint32_t>(NAN)),
      order_(kMostThreads),
      copies_(kMostThreads, {{}}) {}

// --- what happens when

void AsyncUnit::issue(Operation op) {
  op.thread = thread_index().x;
  operations_.push_back(op);
}

// "Pipelined tcgen05 instructions": copies come before later products, products of one kind and
// into the same sums follow each other, a commit follows everything of its thread.
bool AsyncUnit::may_happen(size_t i) const {
  const Operation& op = operations_[i];
  if (op.kind == Kind::kBulkCopy || op.kind == Kind::kCopyScales) return true;
  for (size_t j = 0; j < i; ++j) {
    const Operation& before = operations_[j];
    if (before.thread != op.thread || before.kind == Kind::kBulkCopy) continue;
    const bool same_sums = before.kind == op.kind && before.to == op.to;
    if (op.kind == Kind::kCommit || before.kind == Kind::kCopyScales || same_sums) return false;
  }
  return true;
}

bool AsyncUnit::advance() {
  if (operations_.empty()) return false;
  for (int64_t count = random_.below(4); count >= 0 && !operations_.empty(); --count) {
    std::vector<size_t> possible;
    for (size_t i = 0; i < operations_.size(); ++i) {
      if (may_happen(i)) possible.push_back(i);
    }
    const size_t i = possible[static_cast<size_t>(random_.below(std::ssize(possible)))];
    const Operation op = operations_[i];
    operations_.erase(operations_.begin() + static_cast<std::ptrdiff_t>(i));
    happen(op);
  }
  return true;
}

void AsyncUnit::happen(const Operation& op) {
  switch (op.kind) {
    case Kind::kBulkCopy: {
      std::memcpy(shared_ + op.to, op.global, op.bytes);
      Barrier& barrier = barrier_at(op.barrier);
      barrier.bytes -= op.bytes;
      return complete(barrier);
    }
    case Kind::kCopyScales:
      return copy_scales_now(op);
    case Kind::kMultiplyNvFp4:
      return multiply_nvfp4_now(op);
    case Kind::kMultiplyS8:
      return multiply_s8_now(op);
    case Kind::kCommit: {
      Barrier& barrier = barrier_at(op.to);
      --barrier.missing;
      return complete(barrier);
    }
  }
}

void AsyncUnit::finish() const {
  ATOM_CHECK(operations_.empty(), "operations on their way when the CTA ends");
  ATOM_CHECK(columns_ == 0, "tensor memory is not freed");
  for (const auto& [address, barrier] : barriers_) {
    ATOM_CHECK(barrier.bytes == 0 && barrier.missing == barrier.arrivals,
               "a barrier amid a phase when the CTA ends");
  }
}

// --- mbarriers and bulk copies

AsyncUnit::Barrier& AsyncUnit::barrier_at(uint32_t address) {
  const auto at = barriers_.find(address);
  ATOM_CHECK(at != barriers_.end(), "no barrier was initialized here");
  return at->second;
}

void AsyncUnit::complete(Barrier& barrier) {
  ATOM_CHECK(barrier.missing <= barrier.arrivals, "an arrival too many");
  if (barrier.missing > 0 || barrier.bytes != 0) return;
  barrier.missing = barrier.arrivals;
  barrier.phase ^= 1;
}

void AsyncUnit::init_barrier(uint32_t barrier, uint32_t arrivals) {
  ATOM_CHECK(barrier % 8 == 0 && barrier + 8 <= shared_bytes_, "place of a barrier");
  const bool fresh =
      barriers_
          .insert({barrier, {.arrivals = arrivals, .missing = arrivals, .bytes = 0, .phase = 0}})
          .second;
  ATOM_CHECK(fresh, "a barrier initialized twice");
}

void AsyncUnit::arrive(uint32_t address) {
  ATOM_CHECK(!order_[thread_index().x].loaded,
             "an arrival after loads from tensor memory, without a fence before it");
  Barrier& barrier = barrier_at(address);
  --barrier.missing;
  complete(barrier);
}

void AsyncUnit::expect(uint32_t address, uint32_t bytes) {
  Barrier& barrier = barrier_at(address);
  barrier.bytes += bytes;
  --barrier.missing;
  complete(barrier);
}

void AsyncUnit::wait(uint32_t address, uint32_t parity) {
  const Barrier& barrier = barrier_at(address);
  wait_until([&barrier, parity] { return barrier.phase != parity; });
  order_[thread_index().x].waited = true;
}

void AsyncUnit::bulk_copy(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  ATOM_CHECK(to % 16 == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0 && bytes % 16 == 0 &&
                 bytes > 0 && to + bytes <= shared_bytes_,
             "places and size of a bulk copy");
  issue({.kind = Kind::kBulkCopy, .to = to, .global = from, .bytes = bytes, .barrier = barrier});
}

// A copy comes at once or at the last moment.
void AsyncUnit::copy16(uint32_t to, const void* from) {
  ATOM_CHECK(
      to % 16 == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0 && to + 16 <= shared_bytes_,
      "places of a copy");
  if (random_.below(2) == 0) {
    std::memcpy(shared_ + to, from, 16);
  } else {
    copies_[thread_index().x].back().push_back({to, from});
  }
}

void AsyncUnit::commit_copies() { copies_[thread_index().x].emplace_back(); }

void AsyncUnit::wait_for_copies(int pending) {
  auto& groups = copies_[thread_index().x];
  while (std::ssize(groups) - 1 > pending) {
    for (const Copy16& copy : groups.front()) std::memcpy(shared_ + copy.to, copy.from, 16);
    groups.pop_front();
  }
}

// --- tensor memory

void AsyncUnit::allocate(uint32_t to, int columns) {
  ATOM_CHECK(columns_ == 0 && columns >= 32 && columns <= kColumns &&
                 std::has_single_bit(static_cast<unsigned>(columns)),
             "columns to allocate");
  columns_ = columns;
  // Behind those of another CTA, or not.
  first_column_ = static_cast<uint32_t>(random_.below(kColumns / columns) * columns);
  std::memcpy(shared_ + to, &first_column_, sizeof(first_column_));
}

void AsyncUnit::free(uint32_t columns, int count) {
  ATOM_CHECK(columns == first_column_ && count == columns_, "columns to free");
  ATOM_CHECK(operations_.empty(), "tensor memory is freed while operations are on their way");
  columns_ = 0;
}

void AsyncUnit::check_columns(uint32_t columns, int count) const {
  ATOM_CHECK(
      field(columns, 16, 31) == 0 && columns >= first_column_ &&
          columns + static_cast<uint32_t>(count) <= first_column_ + static_cast<uint32_t>(columns_),
      "columns that are not the CTA's");
}

void AsyncUnit::fence_before() { order_[thread_index().x].loaded = false; }
void AsyncUnit::fence_after() { order_[thread_index().x].waited = false; }

void AsyncUnit::load(uint32_t columns, uint32_t* values, int count) {
  Order& order = order_[thread_index().x];
  ATOM_CHECK(!order.waited, "a load after a wait without a fence between them");
  const auto thread = static_cast<int>(thread_index().x);
  const auto lane = static_cast<int>(field(columns, 16, 31));
  ATOM_CHECK(lane == thread / kWarp % 4 * kWarp, "lanes of another warp");
  check_columns(columns & 0xffff, count);
  for (int i = 0; i < count; ++i) {
    values[i] = word(lane + thread % kWarp, (columns & 0xffff) + static_cast<uint32_t>(i));
  }
  order.loaded = true;
}

// --- the tensor cores

void AsyncUnit::commit(uint32_t barrier) {
  (void)barrier_at(barrier);
  issue({.kind = Kind::kCommit, .to = barrier});
}

void AsyncUnit::copy_scales(uint32_t columns, uint64_t from) {
  ATOM_CHECK(!order_[thread_index().x].waited, "a copy after a wait without a fence between them");
  issue({.kind = Kind::kCopyScales, .to = columns, .a = from});
}

// .32x128b.warpx4: row r's 16 bytes fill four columns of lane r, and of those 32, 64 and 96 behind.
void AsyncUnit::copy_scales_now(const Operation& op) {
  const Matrix rows(op.a);
  ATOM_CHECK(rows.width == 16, "a copy's rows are not swizzled");
  check_columns(op.to, 4);
  for (int lane = 0; lane < kLanes; ++lane) {
    for (uint32_t column = 0; column < 4; ++column) {
      const uint64_t at = rows.address(static_cast<uint64_t>(lane % kWarp), uint64_t{4} * column);
      ATOM_CHECK(at + 4 <= static_cast<uint64_t>(shared_bytes_), "a copy behind shared memory");
      std::memcpy(&word(lane, op.to + column), shared_ + at, 4);
    }
  }
}

void AsyncUnit::multiply_nvfp4(uint32_t sums, uint64_t a, uint64_t b, uint32_t product,
                               uint32_t a_scales, uint32_t b_scales, bool add) {
  ATOM_CHECK(!order_[thread_index().x].waited, "a product after a wait without a fence");
  issue({.kind = Kind::kMultiplyNvFp4,
         .to = sums,
         .a = a,
         .b = b,
         .product = product,
         .a_scales = a_scales,
         .b_scales = b_scales,
         .add = add});
}

void AsyncUnit::multiply_s8(uint32_t sums, uint64_t a, uint64_t b, uint32_t product, bool add) {
  ATOM_CHECK(!order_[thread_index().x].waited, "a product after a wait without a fence");
  issue({.kind = Kind::kMultiplyS8, .to = sums, .a = a, .b = b, .product = product, .add = add});
}

std::vector<uint8_t> AsyncUnit::rows_of(uint64_t matrix, int rows) const {
  const Matrix m(matrix);
  std::vector<uint8_t> bytes;
  for (int row = 0; row < rows; ++row) {
    for (int byte = 0; byte < kOperandBytes; ++byte) {
      const uint64_t at = m.address(static_cast<uint64_t>(row), static_cast<uint64_t>(byte));
      ATOM_CHECK(at < static_cast<uint64_t>(shared_bytes_), "an operand behind shared memory");
      bytes.push_back(shared_[at]);
    }
  }
  return bytes;
}

// "Instruction descriptor", the table of .kind::mxf4nvf4; "Layout of the Scale Factor A Matrix for
// scale_vec::4X": row r's scales are the word in lane r % 32 of column r / 32.
void AsyncUnit::multiply_nvfp4_now(const Operation& op) {
  const uint32_t d = op.product;
  ATOM_CHECK(field(d, 0, 6) == 0 && field(d, 7, 9) == 1 && field(d, 10, 11) == 1 &&
                 field(d, 12, 16) == 0 && field(d, 23, 26) == 0 && field(d, 27, 28) == 1 &&
                 field(d, 29, 31) == 0,
             "descriptor of a product of E2M1 under UE4M3");
  const auto n = static_cast<int>(field(d, 17, 22) * 8);
  ATOM_CHECK(n >= 8 && n <= 256, "columns of a product");
  check_columns(op.to, n);
  check_columns(op.a_scales, kLanes / kWarp);
  check_columns(op.b_scales, (n + kWarp - 1) / kWarp);
  const auto scales_of = [&](uint32_t columns, int row) {
    const uint32_t column = columns + static_cast<uint32_t>(row / kWarp);
    for (int lane = row % kWarp; lane < kLanes; lane += kWarp) {
      ATOM_CHECK(word(lane, column) == word(row % kWarp, column), "scales of four warps differ");
    }
    return word(row % kWarp, column);
  };
  const auto values_of = [&](uint64_t matrix, uint32_t columns, int rows) {
    const std::vector<uint8_t> bytes = rows_of(matrix, rows);
    std::vector<float> values;
    for (int row = 0; row < rows; ++row) {
      const uint32_t scales = scales_of(columns, row);
      for (int k = 0; k < 2 * kOperandBytes; ++k) {
        values.push_back(scaled(bytes.data() + row * kOperandBytes, k, scales));
      }
    }
    return values;
  };
  const std::vector<float> a = values_of(op.a, op.a_scales, kLanes);
  const std::vector<float> b = values_of(op.b, op.b_scales, n);
  for (int row = 0; row < kLanes; ++row) {
    for (int column = 0; column < n; ++column) {
      uint32_t& sum = word(row, op.to + static_cast<uint32_t>(column));
      double value = op.add ? std::bit_cast<float>(sum) : 0.0;
      for (int k = 0; k < 2 * kOperandBytes; ++k) {
        value += static_cast<double>(a[static_cast<size_t>(row * 2 * kOperandBytes + k)]) *
                 b[static_cast<size_t>(column * 2 * kOperandBytes + k)];
      }
      sum = std::bit_cast<uint32_t>(static_cast<float>(value));
    }
  }
}

// The table of .kind::i8.
void AsyncUnit::multiply_s8_now(const Operation& op) {
  const uint32_t d = op.product;
  ATOM_CHECK(field(d, 0, 3) == 0 && field(d, 4, 5) == 2 && field(d, 6, 6) == 0 &&
                 field(d, 7, 9) == 1 && field(d, 10, 12) == 1 && field(d, 13, 16) == 0 &&
                 field(d, 23, 23) == 0 && field(d, 24, 28) == 8 && field(d, 29, 31) == 0,
             "descriptor of a product of signed bytes");
  const auto n = static_cast<int>(field(d, 17, 22) * 8);
  ATOM_CHECK(n == 8 || n == 24 || (n >= 16 && n <= 256 && n % 16 == 0), "columns of a product");
  check_columns(op.to, n);
  const std::vector<uint8_t> a = rows_of(op.a, kLanes), b = rows_of(op.b, n);
  for (int row = 0; row < kLanes; ++row) {
    for (int column = 0; column < n; ++column) {
      uint32_t& sum = word(row, op.to + static_cast<uint32_t>(column));
      auto value = op.add ? static_cast<int32_t>(sum) : 0;
      for (int k = 0; k < kOperandBytes; ++k) {
        value += static_cast<int8_t>(a[static_cast<size_t>(row * kOperandBytes + k)]) *
                 static_cast<int8_t>(b[static_cast<size_t>(column * kOperandBytes + k)]);
      }
      sum = static_cast<uint32_t>(value);
    }
  }
}

}  // namespace atom::emulator
