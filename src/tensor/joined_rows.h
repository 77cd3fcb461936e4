// The rows of several linears as those of one, where they stand.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/packed_linear.h"

namespace atom {

// Parts of one format and K, all with a bias or none, in the order in which a fused linear has
// their rows. The parts must outlive it.
class JoinedRows {
 public:
  struct Row {
    const PackedLinear* part;
    int64_t index;  // in the part
  };

  // A linear as it is.
  JoinedRows(const PackedLinear& linear);  // NOLINT(google-explicit-constructor)
  // One part after another; or, with a run, turns of so many rows of each, of which all have as
  // many, a multiple of it.
  explicit JoinedRows(std::span<const PackedLinear* const> parts, int64_t run = 0);

  const LinearFormat& format() const { return parts_[0]->format; }
  int64_t rows() const { return rows_; }            // N
  int64_t cols() const { return parts_[0]->cols; }  // K
  int64_t body() const { return parts_[0]->body(); }
  int64_t groups() const { return parts_[0]->groups(); }

  Row row(int64_t n) const;
  // An array of as many elements a row, in the order of the rows.
  template <class T>
  std::vector<T> joined(std::vector<T> PackedLinear::*array) const;
  // The only part; null where there are several.
  const PackedLinear* single() const { return parts_.size() == 1 ? parts_[0] : nullptr; }
  // A linear of its own with these rows.
  PackedLinear join() const;

 private:
  // Calls f(part, first, count) for each run of rows of a part, in order.
  template <class F>
  void each_run(const F& f) const;

  std::vector<const PackedLinear*> parts_;
  int64_t run_ = 0;
  int64_t rows_ = 0;
};

template <class F>
void JoinedRows::each_run(const F& f) const {
  const int64_t turns = run_ == 0 ? 1 : parts_[0]->rows / run_;
  for (int64_t turn = 0; turn < turns; ++turn) {
    for (const PackedLinear* part : parts_) f(*part, turn * run_, run_ == 0 ? part->rows : run_);
  }
}

template <class T>
std::vector<T> JoinedRows::joined(std::vector<T> PackedLinear::*array) const {
  std::vector<T> all;
  size_t size = 0;
  for (const PackedLinear* part : parts_) size += (part->*array).size();
  all.reserve(size);
  each_run([&](const PackedLinear& part, int64_t first, int64_t count) {
    const std::vector<T>& from = part.*array;
    const int64_t step = std::ssize(from) / part.rows;
    all.insert(all.end(), from.begin() + first * step, from.begin() + (first + count) * step);
  });
  return all;
}

}  // namespace atom
