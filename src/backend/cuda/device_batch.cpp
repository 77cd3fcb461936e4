#include "backend/cuda/device_batch.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "backend/cuda/kv/rope_append.h"

namespace atom::cuda {
namespace {

// To the next of 64, 80, 96, 112, 128, 160, 192, 224, 256, 320 ...
int64_t round_up_coarsely(int64_t value) {
  constexpr int64_t kLeast = 64;
  if (value <= kLeast) return value == 0 ? 0 : kLeast;
  const auto step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(value - 1))) / 4;
  return (value + step - 1) / step * step;
}

// Puts tokens into tiles, in the order of their rows.
class TileList {
 public:
  explicit TileList(std::vector<int32_t>::iterator to) : begin_(to), end_(to) {}

  int64_t size() const { return end_ - begin_; }
  // `count` tokens of a sequence that has `past` before them, from row `first` on.
  void add(int64_t first, int64_t past, int64_t count) {
    if (count == 1 && first == open_) {
      ++*(end_ - 1);
      open_ = *(end_ - 1) % kRopeTileStep < kRopeTileTokens ? first + 1 : -1;
      return;
    }
    for (int64_t done = 0; done < count;) {
      const int64_t n = std::min(count - done, kPageTokens - (past + done) % kPageTokens);
      *end_++ = static_cast<int32_t>((first + done) * kRopeTileStep + n);
      done += n;
    }
    open_ = count == 1 ? first + 1 : -1;
  }

 private:
  std::vector<int32_t>::iterator begin_, end_;
  int64_t open_ = -1;  // the row that may join the last tile, which is of single tokens
};

}  // namespace

Status DeviceBatch::set(const Batch& batch, cudaStream_t stream) {
  const int64_t tokens = batch.size();
  size_t pages = 0;
  for (const SequenceSlice& slice : batch.sequences) pages += slice.pages.size();
  const auto draws = static_cast<int64_t>(batch.draws.size());
  const int64_t items = draws * kDrawInts, before = items + kItemInts * tokens;
  const auto fixed = static_cast<size_t>(before + static_cast<int64_t>(Part::kPages) * tokens);
  packed_.assign(fixed, 0);
  packed_.reserve(fixed + pages);
  const auto part = [&](Part p) {
    return packed_.begin() + before + static_cast<int64_t>(p) * tokens;
  };
  if (draws > 0)
    std::memcpy(packed_.data(), batch.draws.data(), std::span(batch.draws).size_bytes());
  std::copy(batch.tokens.begin(), batch.tokens.end(), part(Part::kTokens));
  std::copy(batch.positions.begin(), batch.positions.end(), part(Part::kPositions));
  std::copy_n(batch.logit_rows.begin(),
              std::min<int64_t>(static_cast<int64_t>(batch.logit_rows.size()), tokens),
              part(Part::kLogitRows));
  TileList tiles(part(Part::kTiles));
  chunks_.clear();
  decode_.clear();
  longest_decode_ = 0;
  int32_t index = 0;
  const auto add = [&](const SequenceSlice& slice) {
    part(Part::kPageOffset)[index] = static_cast<int32_t>(packed_.size() - fixed);
    part(Part::kPast)[index] = static_cast<int32_t>(slice.past);
    part(Part::kCount)[index] = static_cast<int32_t>(slice.token_count);
    part(Part::kRow)[index] = static_cast<int32_t>(slice.first_token);
    for (int64_t i = 0; i < slice.token_count; ++i) {
      const int64_t t = slice.first_token + i, token = slice.past + i;
      const int32_t page = slice.pages[static_cast<size_t>(token / kPageTokens)];
      part(Part::kSlots)[t] = static_cast<int32_t>(page * kPageTokens + token % kPageTokens);
      part(Part::kTokenSequence)[t] = index;
    }
    tiles.add(slice.first_token, slice.past, slice.token_count);
    packed_.insert(packed_.end(), slice.pages.begin(), slice.pages.end());
    if (slice.token_count > 1) {
      part(Part::kChunkList)[static_cast<int64_t>(chunks_.size())] = index;
      chunks_.push_back(static_cast<int32_t>(slice.token_count));
    } else {
      decode_.push_back({.past = static_cast<int32_t>(slice.past),
                         .page_offset = part(Part::kPageOffset)[index],
                         .row = static_cast<int32_t>(slice.first_token)});
      longest_decode_ = std::max(longest_decode_, slice.past + slice.token_count);
    }
    ++index;
  };
  for (const SequenceSlice& slice : batch.sequences) add(slice);
  tiles_ = tiles.size();
  // Long ones first: what runs last, with the chip no longer full, is short.
  std::stable_sort(decode_.begin(), decode_.end(),
                   [](const auto& a, const auto& b) { return a.past > b.past; });
  if (!decode_.empty()) {
    std::memcpy(packed_.data() + items, decode_.data(), std::span(decode_).size_bytes());
  }
  longest_decode_ = round_up_coarsely(longest_decode_);
  if (draws == draws_ && tokens == tokens_ && packed_ == sent_) return {};
  draws_ = draws;
  tokens_ = tokens;
  ATOM_TRY(upload_.send(packed_, stream));
  packed_.swap(sent_);
  return {};
}

const void* DeviceBatch::find(const Batch& batch, const void* host) const {
  if (host == batch.tokens.data()) return at(Part::kTokens);
  if (host == batch.logit_rows.data()) return at(Part::kLogitRows);
  return host != nullptr && host == batch.draws.data() ? upload_.data() : nullptr;
}

attention::SequenceView DeviceBatch::sequences() const {
  return {.pages = at(Part::kPages),
          .page_offset = at(Part::kPageOffset),
          .past = at(Part::kPast),
          .count = at(Part::kCount),
          .row = at(Part::kRow)};
}

}  // namespace atom::cuda
