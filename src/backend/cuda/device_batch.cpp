#include "backend/cuda/device_batch.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace atom::cuda {
namespace {

// To the next of 64, 80, 96, 112, 128, 160, 192, 224, 256, 320 ...
int64_t round_up_coarsely(int64_t value) {
  constexpr int64_t kLeast = 64;
  if (value <= kLeast) return value == 0 ? 0 : kLeast;
  const auto step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(value - 1))) / 4;
  return (value + step - 1) / step * step;
}

// Adds the tokens of a slice to the tiles, in the order of their rows: single ones side by side.
void add_tiles(const SequenceSlice& slice, const Batch& batch, std::vector<RopeTile>& tiles) {
  const auto row = static_cast<int32_t>(slice.first_token);
  if (slice.token_count == 1) {
    const bool joins = !tiles.empty() && tiles.back().slot < 0 &&
                       tiles.back().count < kRopeTileTokens &&
                       tiles.back().first + tiles.back().count == row;
    if (!joins) tiles.push_back({.first = row, .slot = -1});
    ++tiles.back().count;
    return;
  }
  for (int64_t done = 0; done < slice.token_count;) {
    const int64_t token = slice.past + done, in_page = token % kPageTokens;
    const int64_t count = std::min(slice.token_count - done, kPageTokens - in_page);
    const auto first = static_cast<size_t>(slice.first_token + done);
    const int32_t page = slice.pages[static_cast<size_t>(token / kPageTokens)];
    const auto positions = std::span(batch.positions).subspan(first, static_cast<size_t>(count));
    const bool in_turn = std::ranges::adjacent_find(positions, [](int32_t a, int32_t b) {
                           return b != a + 1;
                         }) == positions.end();
    tiles.push_back({.first = static_cast<int32_t>(first),
                     .count = static_cast<int32_t>(count),
                     .position = positions[0],
                     .slot = in_turn ? static_cast<int32_t>(page * kPageTokens + in_page) : -1});
    done += count;
  }
}

// Of sequences in order of length the long and the middle third take turns, so that CTAs of a wave
// do not end all at once; the short ones stay last.
void take_turns(std::vector<attention::DecodeItem>& items) {
  const size_t third = items.size() / 3;
  std::vector<attention::DecodeItem> turns;
  turns.reserve(2 * third);
  for (size_t i = 0; i < third; ++i) {
    turns.push_back(items[i]);
    turns.push_back(items[third + i]);
  }
  std::copy(turns.begin(), turns.end(), items.begin());
}

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
  tiles_.clear();
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
    add_tiles(slice, batch, tiles_);
    packed_.insert(packed_.end(), slice.pages.begin(), slice.pages.end());
    if (slice.token_count > 1) {
      chunks_.push_back({.past = static_cast<int32_t>(slice.past),
                         .count = static_cast<int32_t>(slice.token_count),
                         .page_offset = part(Part::kPageOffset)[index],
                         .row = static_cast<int32_t>(slice.first_token)});
    } else {
      decode_.push_back({.past = static_cast<int32_t>(slice.past),
                         .page_offset = part(Part::kPageOffset)[index],
                         .row = static_cast<int32_t>(slice.first_token)});
      longest_decode_ = std::max(longest_decode_, slice.past + slice.token_count);
    }
    ++index;
  };
  for (const SequenceSlice& slice : batch.sequences) add(slice);
  // Long ones first: what runs last, with the chip no longer full, is short.
  std::stable_sort(decode_.begin(), decode_.end(),
                   [](const auto& a, const auto& b) { return a.past > b.past; });
  take_turns(decode_);
  std::stable_sort(chunks_.begin(), chunks_.end(), [](const auto& a, const auto& b) {
    return a.past + a.count > b.past + b.count;
  });
  chunk_counts_.clear();
  for (const attention::ChunkItem& item : chunks_) chunk_counts_.push_back(item.count);
  static_assert(sizeof(attention::ChunkItem) == sizeof(attention::DecodeItem));
  if (!decode_.empty()) {
    std::memcpy(packed_.data() + items, decode_.data(), std::span(decode_).size_bytes());
  }
  if (!chunks_.empty()) {
    std::memcpy(packed_.data() + items + kItemInts * decode_items(), chunks_.data(),
                std::span(chunks_).size_bytes());
  }
  longest_decode_ = round_up_coarsely(longest_decode_);
  if (chunks_.empty()) tiles_.clear();  // single tokens need none
  constexpr size_t kTileInts = sizeof(RopeTile) / sizeof(int32_t);
  const size_t tiles_at = (packed_.size() + kTileInts - 1) / kTileInts * kTileInts;
  if (!tiles_.empty()) {
    packed_.resize(tiles_at + tiles_.size() * kTileInts);
    std::memcpy(packed_.data() + tiles_at, tiles_.data(), std::span(tiles_).size_bytes());
  }
  if (draws == draws_ && tokens == tokens_ && packed_ == sent_) return {};
  draws_ = draws;
  tokens_ = tokens;
  tiles_at_ = static_cast<int64_t>(tiles_at);
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
