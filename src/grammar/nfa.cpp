#include "grammar/nfa.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <map>
#include <utility>

#include "text/unicode.h"

namespace atom::grammar {
namespace {

constexpr size_t kMaxNfaStates = 200'000;
constexpr int64_t kMaxNfaNodes = 1'000'000;
constexpr size_t kMaxDfaStates = 20'000;

// Marks without clearing: a state is marked if its stamp is the current one.
class Marks {
 public:
  explicit Marks(size_t size) : stamps_(size, 0) {}
  void clear() { ++stamp_; }
  bool mark(int32_t i) { return std::exchange(stamps_[static_cast<size_t>(i)], stamp_) != stamp_; }

 private:
  std::vector<uint32_t> stamps_;
  uint32_t stamp_ = 0;
};

}  // namespace

Result<int32_t> Nfa::add_state() {
  if (states_.size() >= kMaxNfaStates) {
    return error(ErrorCode::kInvalidArgument, "{}: the pattern's repeats expand to too many states",
                 place_);
  }
  states_.emplace_back();
  return static_cast<int32_t>(states_.size() - 1);
}

Result<int32_t> Nfa::add(const RegexNode& node, int32_t from, CharSpelling spelling) {
  // Repeats of the empty text add no states, but must come to an end as well.
  if (++nodes_added_ > kMaxNfaNodes) {
    return error(ErrorCode::kInvalidArgument, "{}: the pattern's repeats expand to too much",
                 place_);
  }
  switch (node.kind) {
    case RegexNode::Kind::kChars: {
      const int32_t to = ATOM_TRY(add_state());
      ATOM_TRY(add_chars(node.chars, from, to, spelling));
      return to;
    }
    case RegexNode::Kind::kConcat: {
      int32_t at = from;
      for (const RegexNode& child : node.children) at = ATOM_TRY(add(child, at, spelling));
      return at;
    }
    case RegexNode::Kind::kAlternate: {
      const int32_t to = ATOM_TRY(add_state());
      for (const RegexNode& child : node.children) {
        // A state of its own, lest a loop at the child's start lead into its siblings.
        const int32_t begin = ATOM_TRY(add_state());
        state(from).epsilons.push_back(begin);
        const int32_t end = ATOM_TRY(add(child, begin, spelling));
        state(end).epsilons.push_back(to);
      }
      return to;
    }
    case RegexNode::Kind::kRepeat: {
      const RegexNode& child = node.children[0];
      int32_t at = from;
      for (int64_t i = 0; i < node.least; ++i) at = ATOM_TRY(add(child, at, spelling));
      const int32_t to = ATOM_TRY(add_state());
      if (node.most == RegexNode::kUnbounded) {
        const int32_t loop = ATOM_TRY(add_state());
        state(at).epsilons.push_back(loop);
        const int32_t end = ATOM_TRY(add(child, loop, spelling));
        state(end).epsilons.push_back(loop);
        state(loop).epsilons.push_back(to);
        return to;
      }
      state(at).epsilons.push_back(to);
      for (int64_t i = node.least; i < node.most; ++i) {
        at = ATOM_TRY(add(child, at, spelling));
        state(at).epsilons.push_back(to);
      }
      return to;
    }
    case RegexNode::Kind::kBegin:
    case RegexNode::Kind::kEnd:
      break;
  }
  ATOM_CHECK(false, "anchored() removes all anchors");
}

Status Nfa::add_chars(const CharSet& chars, int32_t from, int32_t to, CharSpelling spelling) {
  if (spelling == CharSpelling::kUtf8) {
    for (const CharRange& range : chars.ranges()) {
      ATOM_TRY(add_utf8(range.first, range.last, from, to));
    }
    return {};
  }
  const CharSet escaped({{0, 0x1f}, {'"', '"'}, {'\\', '\\'}});
  const CharSet plain = chars.intersection(escaped.complement());
  for (const CharRange& range : plain.ranges()) {
    ATOM_TRY(add_utf8(range.first, range.last, from, to));
  }
  const CharSet rest = chars.intersection(escaped);
  for (const CharRange& range : rest.ranges()) {
    for (char32_t c = range.first; c <= range.last; ++c) {
      constexpr std::string_view kShort = "\"\"\\\\\bb\ff\nn\rr\tt";  // pairs: character, letter
      std::string bytes = fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
      for (size_t i = 0; i < kShort.size(); i += 2) {
        if (static_cast<char32_t>(kShort[i]) == c) bytes = {'\\', kShort[i + 1]};
      }
      ATOM_TRY(add_bytes(bytes, from, to));
    }
  }
  return {};
}

Status Nfa::add_bytes(std::string_view bytes, int32_t from, int32_t to) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto byte = static_cast<uint8_t>(bytes[i]);
    const int32_t next = i + 1 == bytes.size() ? to : ATOM_TRY(add_state());
    state(from).edges.push_back({byte, byte, next});
    from = next;
  }
  return {};
}

// Splits a range until the byte sequences of its ends, taken position by position, span exactly it:
// first where the length changes, then at multiples of 64, 64^2, 64^3.
Status Nfa::add_utf8(char32_t first, char32_t last, int32_t from, int32_t to) {
  for (const char32_t longest : {char32_t{0x7f}, char32_t{0x7ff}, char32_t{0xffff}}) {
    if (first <= longest && last > longest) {
      ATOM_TRY(add_utf8(first, longest, from, to));
      return add_utf8(longest + 1, last, from, to);
    }
  }
  if (last > 0x7f) {
    for (char32_t block = 0x3f; block <= 0x3ffff; block = (block << 6) | 0x3f) {
      if ((first & ~block) == (last & ~block)) break;
      if ((first & block) != 0) {
        ATOM_TRY(add_utf8(first, first | block, from, to));
        return add_utf8((first | block) + 1, last, from, to);
      }
      if ((last & block) != block) {
        ATOM_TRY(add_utf8(first, (last & ~block) - 1, from, to));
        return add_utf8(last & ~block, last, from, to);
      }
    }
  }
  std::string low;
  std::string high;
  append_utf8(low, first);
  append_utf8(high, last);
  for (size_t i = 0; i < low.size(); ++i) {
    const int32_t next = i + 1 == low.size() ? to : ATOM_TRY(add_state());
    state(from).edges.push_back(
        {static_cast<uint8_t>(low[i]), static_cast<uint8_t>(high[i]), next});
    from = next;
  }
  return {};
}

// The bytes where some edge begins or the one behind it: between two of them all bytes are alike.
std::vector<uint8_t> Nfa::class_starts() const {
  std::bitset<257> starts;
  starts.set(0);
  for (const State& s : states_) {
    for (const ByteEdge& edge : s.edges) {
      starts.set(edge.first);
      starts.set(static_cast<size_t>(edge.last) + 1);
    }
  }
  std::vector<uint8_t> result;
  for (size_t byte = 0; byte < 256; ++byte) {
    if (starts.test(byte)) result.push_back(static_cast<uint8_t>(byte));
  }
  return result;
}

Result<Dfa> Nfa::determinize(int32_t accepting, WorkBudget& budget) const {
  const std::vector<uint8_t> starts = class_starts();
  std::array<size_t, 256> class_of = {};
  for (size_t byte = 0, c = 0; byte < 256; ++byte) {
    if (c + 1 < starts.size() && starts[c + 1] == byte) ++c;
    class_of[byte] = c;
  }

  Dfa dfa;
  std::map<std::vector<int32_t>, int32_t> ids;    // of sets, without states that only have epsilons
  std::vector<const std::vector<int32_t>*> sets;  // by id
  Marks marks(states_.size());
  std::vector<int32_t> todo;
  // The id of the set that is reached from these states, which are consumed.
  const auto id_of = [&](std::vector<int32_t>& from) -> Result<int32_t> {
    marks.clear();
    todo.clear();
    std::vector<int32_t> set;
    for (const int32_t s : from) {
      if (marks.mark(s)) todo.push_back(s);
    }
    int64_t work = 8;
    while (!todo.empty()) {
      const int32_t s = todo.back();
      todo.pop_back();
      work += 1 + static_cast<int64_t>(state(s).epsilons.size());
      if (!state(s).edges.empty() || s == accepting) set.push_back(s);
      for (const int32_t target : state(s).epsilons) {
        if (marks.mark(target)) todo.push_back(target);
      }
    }
    ATOM_TRY(budget.spend(work, place_));
    std::sort(set.begin(), set.end());
    const auto [it, is_new] = ids.try_emplace(std::move(set), static_cast<int32_t>(sets.size()));
    if (is_new) {
      if (sets.size() >= kMaxDfaStates) {
        return error(ErrorCode::kInvalidArgument, "{}: the pattern needs more than {} states",
                     place_, kMaxDfaStates);
      }
      sets.push_back(&it->first);
      dfa.states.emplace_back();
      dfa.states.back().accepting =
          std::binary_search(it->first.begin(), it->first.end(), accepting);
    }
    return it->second;
  };

  std::vector<int32_t> start = {0};
  ATOM_TRY(id_of(start));
  std::vector<std::vector<int32_t>> targets(starts.size());
  for (size_t current = 0; current < sets.size(); ++current) {
    for (auto& list : targets) list.clear();
    for (const int32_t s : *sets[current]) {
      for (const ByteEdge& edge : state(s).edges) {
        for (size_t c = class_of[edge.first]; c <= class_of[edge.last]; ++c) {
          targets[c].push_back(edge.target);
        }
      }
    }
    std::vector<ByteEdge> edges;
    for (size_t c = 0; c < starts.size(); ++c) {
      if (targets[c].empty()) continue;
      const int32_t target = ATOM_TRY(id_of(targets[c]));
      const auto last = static_cast<uint8_t>(c + 1 < starts.size() ? starts[c + 1] - 1 : 255);
      if (!edges.empty() && edges.back().target == target && edges.back().last + 1 == starts[c]) {
        edges.back().last = last;
      } else {
        edges.push_back({starts[c], last, target});
      }
    }
    dfa.states[current].edges = std::move(edges);
  }
  return dfa;
}

}  // namespace atom::grammar
