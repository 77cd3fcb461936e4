#include "tensor/joined_rows.h"

#include "base/check.h"

namespace atom {
namespace {

// Calls f with each member that is an array of as many elements a row.
template <class F>
void each_array(const F& f) {
  f(&PackedLinear::values);
  f(&PackedLinear::values16);
  f(&PackedLinear::codes);
  f(&PackedLinear::scales);
  f(&PackedLinear::group_scales);
  f(&PackedLinear::group_zeros);
  f(&PackedLinear::row_scales);
  f(&PackedLinear::outlier_codes);
  f(&PackedLinear::outlier_scales);
  f(&PackedLinear::outlier_values);
  f(&PackedLinear::bias);
}

}  // namespace

JoinedRows::JoinedRows(const PackedLinear& linear) : parts_{&linear}, rows_(linear.rows) {}

JoinedRows::JoinedRows(std::span<const PackedLinear* const> parts, int64_t run)
    : parts_(parts.begin(), parts.end()), run_(run) {
  ATOM_CHECK(!parts.empty(), "nothing to join");
  const PackedLinear& first = *parts[0];
  for (const PackedLinear* part : parts) {
    ATOM_CHECK(part->format == first.format && part->cols == first.cols, "formats differ");
    ATOM_CHECK(part->bias.empty() == first.bias.empty(), "all parts have a bias or none");
    ATOM_CHECK(run == 0 || (part->rows == first.rows && part->rows % run == 0),
               "rows that do not come in turns");
    rows_ += part->rows;
  }
}

JoinedRows::Row JoinedRows::row(int64_t n) const {
  if (run_ != 0) {
    const int64_t turn = run_ * std::ssize(parts_);
    return {parts_[static_cast<size_t>(n % turn / run_)], n / turn * run_ + n % run_};
  }
  size_t part = 0;
  while (n >= parts_[part]->rows) n -= parts_[part++]->rows;
  return {parts_[part], n};
}

PackedLinear JoinedRows::join() const {
  PackedLinear whole;
  whole.format = format();
  whole.rows = rows();
  whole.cols = cols();
  each_array([&](auto array) { whole.*array = joined(array); });
  return whole;
}

}  // namespace atom
