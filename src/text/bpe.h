// Byte-pair encoding of one piece of text: start from bytes or characters, and merge the adjacent
// pair of lowest rank (leftmost first) until none is left.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/flat_map.h"
#include "text/tokenizer_spec.h"

namespace atom {

// Pieces met before in this text, by text. An entry points at where the ids of an earlier
// occurrence stand in the output. A newcomer takes the place of what shares its slot, so that no
// text, however chosen, makes look-ups slow.
class PieceCache {
 public:
  explicit PieceCache(size_t text_bytes);
  struct Entry {
    const char* text = nullptr;
    uint32_t length = 0;
    uint32_t count = 0;  // ids
    size_t first = 0;    // position of the first id in the output
  };
  Entry& slot(std::string_view text) { return entries_[hash_bytes(text) >> shift_]; }

 private:
  std::vector<Entry> entries_;
  int shift_;
};

class BpeModel {
 public:
  // byte_level: token strings stand for bytes by GPT-2's table. place names the file.
  static Result<BpeModel> create(const BpeSpec& spec, bool byte_level, std::string_view place);

  // What one call of encode() works with. The output must only grow while it is in use.
  class Run {
   public:
    Run(const BpeModel& model, size_t text_bytes, std::vector<int32_t>& out)
        : model_(model), cache_(text_bytes), out_(out) {}
    // Appends the ids of a piece. Its bytes must outlive the run.
    void encode(std::string_view piece);

   private:
    struct Symbol {
      int32_t id;  // -1 once merged into the one in front
      int32_t previous;
      int32_t next;
    };
    struct Candidate {
      uint32_t rank;
      int32_t at;
      int32_t result;
      // Reversed, because the standard heap keeps the greatest on top.
      bool operator<(const Candidate& other) const {
        return rank != other.rank ? rank > other.rank : at > other.at;
      }
    };
    void encode_cached(std::string_view piece);
    void start_symbols(std::string_view piece);
    void merge_few();
    void merge_many();
    void push_candidate(int32_t left, int32_t right);

    const BpeModel& model_;
    PieceCache cache_;
    std::vector<int32_t>& out_;
    std::vector<int32_t> ids_;
    std::vector<PairMap::Value> pairs_;
    std::vector<Symbol> symbols_;
    std::vector<Candidate> heap_;
  };

  // The id of a vocabulary entry, spelled as in the file, or -1.
  int32_t token_to_id(std::string_view token) const { return by_name_.find(names_, token); }
  std::string_view name(int32_t id) const { return names_[static_cast<size_t>(id)]; }
  int32_t size() const { return static_cast<int32_t>(names_.size()); }
  // The byte that <0xNN> stands for if this id is such a token and byte_fallback is on, else -1.
  int fallback_byte(int32_t id) const;

 private:
  int32_t find_text(std::string_view text) const {
    return byte_level_ ? by_bytes_.find(bytes_, text) : by_name_.find(names_, text);
  }
  bool joins(char32_t left, char32_t right) const;
  void index_joins(const BpeSpec& spec);

  StringTable names_;
  TextIndex by_name_;
  StringTable bytes_;  // byte level only: what a token stands for, "" for what is no byte string
  TextIndex by_bytes_;
  PairMap merges_;
  int32_t byte_ids_[256];  // of single bytes; byte level: the token, else the fallback <0xNN>
  bool byte_level_ = false;
  bool byte_fallback_ = false;
  bool fuse_unk_ = false;
  bool ignore_merges_ = false;
  int32_t unk_id_ = -1;
  // Pairs of characters that stand side by side in some merged token. Between any other two
  // characters nothing ever merges, so that a long text falls into words that can be cached.
  bool cut_ = false;
  PairMap joins_;
};

}  // namespace atom
