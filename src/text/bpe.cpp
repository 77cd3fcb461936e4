#include "text/bpe.h"

#include <algorithm>
#include <array>

#include "text/unicode.h"

namespace atom {
namespace {

constexpr size_t kMaxCachedBytes = 256;
// Up to here scanning all pairs for the lowest rank beats a heap.
constexpr size_t kFewSymbols = 32;

std::string byte_token(int byte) { return fmt::format("<0x{:02X}>", byte); }

}  // namespace

PieceCache::PieceCache(size_t text_bytes) {
  const size_t count = std::bit_ceil(std::clamp<size_t>(text_bytes / 4, 16, 1u << 16));
  entries_.resize(count);
  shift_ = 64 - std::countr_zero(count);
}

Result<BpeModel> BpeModel::create(const BpeSpec& spec, bool byte_level, std::string_view place) {
  BpeModel model;
  model.byte_level_ = byte_level;
  model.byte_fallback_ = spec.byte_fallback;
  model.fuse_unk_ = spec.fuse_unk;
  model.ignore_merges_ = spec.ignore_merges;
  model.unk_id_ = spec.unk_id;
  const auto count = static_cast<int32_t>(spec.tokens.size());
  model.by_name_.reserve(spec.tokens.size());
  if (byte_level) model.by_bytes_.reserve(spec.tokens.size());
  std::string bytes;
  for (int32_t id = 0; id < count; ++id) {
    const std::string& token = spec.tokens[static_cast<size_t>(id)];
    model.names_.push_back(token);
    if (byte_level) model.bytes_.push_back(chars_to_bytes(token, bytes) ? bytes : std::string());
    if (token.empty()) continue;
    if (!model.by_name_.insert(model.names_, id)) {
      return error(ErrorCode::kCorrupt, "{}: token {} repeats the text of token {}", place, id,
                   model.by_name_.find(model.names_, token));
    }
    if (byte_level && !model.bytes_[static_cast<size_t>(id)].empty()) {
      model.by_bytes_.insert(model.bytes_, id);
    }
  }
  bool all_bytes = true;
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    int32_t& id = model.byte_ids_[byte];
    id = byte_level           ? model.by_bytes_.find(model.bytes_, {&c, 1})
         : spec.byte_fallback ? model.by_name_.find(model.names_, byte_token(byte))
                              : -1;
    all_bytes = all_bytes && id >= 0;
  }
  if (byte_level && spec.byte_fallback && !all_bytes) {
    return error(ErrorCode::kUnsupported,
                 "{}: byte_fallback over a byte-level vocabulary that lacks some bytes", place);
  }
  model.merges_.reserve(spec.merges.size());
  bool merges_stay_text = true;  // no fallback or unknown token takes part in a merge
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const Merge& merge = spec.merges[rank];
    model.merges_.set(merge.left, merge.right, {static_cast<uint32_t>(rank), merge.result});
    for (const int32_t id : {merge.left, merge.right}) {
      if (id == spec.unk_id || model.fallback_byte(id) >= 0) merges_stay_text = false;
    }
  }
  const bool unknown_possible = spec.unk_id >= 0 && !(spec.byte_fallback && all_bytes);
  const bool all_covered = spec.byte_fallback && all_bytes;
  model.cut_ = !byte_level && merges_stay_text && !(unknown_possible && spec.fuse_unk) &&
               (all_covered || spec.unk_id >= 0);
  if (model.cut_) model.index_joins(spec);
  return model;
}

void BpeModel::index_joins(const BpeSpec& spec) {
  std::vector<uint64_t> pairs;
  for (const Merge& merge : spec.merges) {
    const std::string& token = spec.tokens[static_cast<size_t>(merge.result)];
    const char* p = token.data();
    const char* end = p + token.size();
    for (char32_t previous = 0; p < end;) {
      const Utf8Step step = utf8_step(p, end);
      if (p != token.data()) pairs.push_back(static_cast<uint64_t>(previous) << 32 | step.code);
      previous = step.code;
      p += step.length;
    }
  }
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  joins_.reserve(pairs.size());
  for (const uint64_t pair : pairs) {
    joins_.set(static_cast<int32_t>(pair >> 32), static_cast<int32_t>(pair & 0xffffffff), {0, 0});
  }
}

bool BpeModel::joins(char32_t left, char32_t right) const {
  return joins_.find(static_cast<int32_t>(left), static_cast<int32_t>(right)).result == 0;
}

int BpeModel::fallback_byte(int32_t id) const {
  if (byte_level_ || !byte_fallback_) return -1;
  const std::string_view token = name(id);
  if (token.size() != 6 || !token.starts_with("<0x")) return -1;
  for (int byte = 0; byte < 256; ++byte) {
    if (byte_ids_[byte] == id) return byte;
  }
  return -1;
}

void BpeModel::Run::encode(std::string_view piece) {
  if (model_.ignore_merges_) {
    const int32_t whole = model_.find_text(piece);
    if (whole >= 0) {
      out_.push_back(whole);
      return;
    }
  }
  if (!model_.cut_) {
    encode_cached(piece);
    return;
  }
  const char* begin = piece.data();
  const char* end = begin + piece.size();
  char32_t previous = 0;
  for (const char* p = begin; p < end;) {
    const Utf8Step step = utf8_step(p, end);
    if (p != begin && !model_.joins(previous, step.code)) {
      encode_cached({begin, static_cast<size_t>(p - begin)});
      begin = p;
    }
    previous = step.code;
    p += step.length;
  }
  encode_cached({begin, static_cast<size_t>(end - begin)});
}

void BpeModel::Run::encode_cached(std::string_view piece) {
  PieceCache::Entry* entry = nullptr;
  if (piece.size() <= kMaxCachedBytes) {
    entry = &cache_.slot(piece);
    if (entry->length == piece.size() && entry->text != nullptr &&
        std::memcmp(entry->text, piece.data(), piece.size()) == 0) {
      const size_t first = entry->first;
      const size_t count = entry->count;
      out_.resize(out_.size() + count);
      std::copy_n(out_.data() + first, count, out_.data() + out_.size() - count);
      return;
    }
  }
  const size_t first = out_.size();
  start_symbols(piece);
  if (ids_.size() <= kFewSymbols) {
    merge_few();
  } else {
    merge_many();
  }
  if (entry != nullptr) {
    *entry = {piece.data(), static_cast<uint32_t>(piece.size()),
              static_cast<uint32_t>(out_.size() - first), first};
  }
}

// Fills ids_ with one id a byte or character. What the vocabulary cannot say becomes byte tokens,
// else the unknown token, else nothing.
void BpeModel::Run::start_symbols(std::string_view piece) {
  ids_.clear();
  int pending_unknown = 0;
  const auto unknown = [&] {
    if (model_.unk_id_ < 0) return;
    if (pending_unknown != 0 && !model_.fuse_unk_) ids_.push_back(model_.unk_id_);
    pending_unknown = 1;
  };
  const auto known = [&](int32_t id) {
    if (pending_unknown != 0) ids_.push_back(model_.unk_id_);
    pending_unknown = 0;
    ids_.push_back(id);
  };
  if (model_.byte_level_) {
    for (const char c : piece) {
      const int32_t id = model_.byte_ids_[static_cast<uint8_t>(c)];
      if (id >= 0) {
        known(id);
      } else {
        unknown();
      }
    }
  } else {
    const char* p = piece.data();
    const char* end = p + piece.size();
    while (p < end) {
      const Utf8Step step = utf8_step(p, end);
      const std::string_view text(p, step.length);
      p += step.length;
      const int32_t id =
          step.kind == Utf8Step::Kind::kCharacter ? model_.by_name_.find(model_.names_, text) : -1;
      if (id >= 0) {
        known(id);
        continue;
      }
      if (model_.byte_fallback_ && std::all_of(text.begin(), text.end(), [&](char c) {
            return model_.byte_ids_[static_cast<uint8_t>(c)] >= 0;
          })) {
        for (const char c : text) ids_.push_back(model_.byte_ids_[static_cast<uint8_t>(c)]);
        continue;
      }
      unknown();
    }
  }
  if (pending_unknown != 0) ids_.push_back(model_.unk_id_);
}

void BpeModel::Run::merge_few() {
  size_t count = ids_.size();
  std::array<PairMap::Value, kFewSymbols> pairs;
  for (size_t i = 0; i + 1 < count; ++i) pairs[i] = model_.merges_.find(ids_[i], ids_[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].result < 0) break;
    ids_[best] = pairs[best].result;
    for (size_t i = best + 1; i + 1 < count; ++i) {
      ids_[i] = ids_[i + 1];
      pairs[i - 1] = pairs[i];
    }
    --count;
    if (best > 0) pairs[best - 1] = model_.merges_.find(ids_[best - 1], ids_[best]);
    if (best + 1 < count) pairs[best] = model_.merges_.find(ids_[best], ids_[best + 1]);
  }
  out_.insert(out_.end(), ids_.begin(), ids_.begin() + static_cast<ptrdiff_t>(count));
}

void BpeModel::Run::push_candidate(int32_t left, int32_t right) {
  if (left < 0 || right < 0) return;
  const PairMap::Value value = model_.merges_.find(symbols_[static_cast<size_t>(left)].id,
                                                   symbols_[static_cast<size_t>(right)].id);
  if (value.result < 0) return;
  heap_.push_back({value.rank, left, value.result});
  std::push_heap(heap_.begin(), heap_.end());
}

void BpeModel::Run::merge_many() {
  const auto count = static_cast<int32_t>(ids_.size());
  symbols_.clear();
  heap_.clear();
  for (int32_t i = 0; i < count; ++i) {
    symbols_.push_back({ids_[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1});
  }
  for (int32_t i = 0; i + 1 < count; ++i) push_candidate(i, i + 1);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end());
    const Candidate top = heap_.back();
    heap_.pop_back();
    Symbol& left = symbols_[static_cast<size_t>(top.at)];
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbols_[static_cast<size_t>(left.next)];
    // An entry is stale where one of its two was merged since.
    if (model_.merges_.find(left.id, right.id).result != top.result) continue;
    left.id = top.result;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols_[static_cast<size_t>(left.next)].previous = top.at;
    push_candidate(left.previous, top.at);
    push_candidate(top.at, left.next);
  }
  for (const Symbol& symbol : symbols_) {
    if (symbol.id >= 0) out_.push_back(symbol.id);
  }
}

}  // namespace atom
