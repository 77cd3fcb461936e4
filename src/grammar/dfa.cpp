#include "grammar/dfa.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "grammar/nfa.h"

namespace atom::grammar {
namespace {

constexpr size_t kMaxStates = 20'000;

// Adds an edge, as part of the last one where it goes on from there.
void append_edge(std::vector<ByteEdge>& edges, ByteEdge edge) {
  if (!edges.empty() && edges.back().target == edge.target && edges.back().last + 1 == edge.first) {
    edges.back().last = edge.last;
  } else {
    edges.push_back(edge);
  }
}

}  // namespace

int32_t Dfa::next(int32_t state, uint8_t byte) const {
  for (const ByteEdge& edge : states[static_cast<size_t>(state)].edges) {
    if (byte >= edge.first && byte <= edge.last) return edge.target;
  }
  return -1;
}

bool Dfa::accepts(std::string_view text) const {
  int32_t state = 0;
  for (const char c : text) {
    state = next(state, static_cast<uint8_t>(c));
    if (state < 0) return false;
  }
  return states[static_cast<size_t>(state)].accepting;
}

Result<Dfa> compile_regex(const RegexNode& root, CharSpelling spelling, WorkBudget& budget,
                          std::string_view place) {
  Nfa nfa(place);
  const int32_t start = ATOM_TRY(nfa.add_state());
  const int32_t end = ATOM_TRY(nfa.add(root, start, spelling));
  return nfa.determinize(end, budget);
}

Result<Dfa> compile_pattern(std::string_view pattern, bool search, CharSpelling spelling,
                            WorkBudget& budget, std::string_view place) {
  const RegexNode root = ATOM_TRY(anchored(ATOM_TRY(parse_regex(pattern, place)), search, place));
  return compile_regex(root, spelling, budget, place);
}

Result<Dfa> compile_texts(std::span<const std::string> texts, WorkBudget& budget,
                          std::string_view place) {
  Dfa dfa;
  dfa.states.emplace_back();
  for (const std::string& text : texts) {
    ATOM_TRY(budget.spend(static_cast<int64_t>(text.size()) + 1, place));
    size_t at = 0;
    for (const char c : text) {
      const auto byte = static_cast<uint8_t>(c);
      const int32_t known = dfa.next(static_cast<int32_t>(at), byte);
      if (known >= 0) {
        at = static_cast<size_t>(known);
        continue;
      }
      const size_t fresh = dfa.states.size();
      dfa.states.emplace_back();
      std::vector<ByteEdge>& edges = dfa.states[at].edges;
      const auto behind = std::find_if(edges.begin(), edges.end(),
                                       [&](const ByteEdge& edge) { return edge.first > byte; });
      edges.insert(behind, {byte, byte, static_cast<int32_t>(fresh)});
      at = fresh;
    }
    dfa.states[at].accepting = true;
  }
  return dfa;
}

Result<Dfa> combine(const Dfa& a, const Dfa& b, SetOperation operation, WorkBudget& budget,
                    std::string_view place) {
  constexpr int32_t kGone = -1;  // b accepts nothing from here on
  Dfa result;
  std::unordered_map<uint64_t, int32_t> ids;
  std::vector<std::pair<int32_t, int32_t>> pairs;
  const auto id_of = [&](int32_t left, int32_t right) {
    const uint64_t key =
        static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
    const auto [it, is_new] = ids.try_emplace(key, static_cast<int32_t>(pairs.size()));
    if (is_new) {
      pairs.emplace_back(left, right);
      const bool in_b = right != kGone && b.states[static_cast<size_t>(right)].accepting;
      const bool wanted = operation == SetOperation::kBoth ? in_b : !in_b;
      result.states.push_back({a.states[static_cast<size_t>(left)].accepting && wanted, {}});
    }
    return it->second;
  };

  id_of(0, 0);
  for (size_t current = 0; current < pairs.size(); ++current) {
    if (pairs.size() > kMaxStates) {
      return error(ErrorCode::kInvalidArgument,
                   "{}: the conditions on one text need more than {} states together", place,
                   kMaxStates);
    }
    const auto [left, right] = pairs[current];
    static const std::vector<ByteEdge> kNoEdges;
    const std::vector<ByteEdge>& left_edges = a.states[static_cast<size_t>(left)].edges;
    const std::vector<ByteEdge>& right_edges =
        right == kGone ? kNoEdges : b.states[static_cast<size_t>(right)].edges;
    ATOM_TRY(budget.spend(static_cast<int64_t>(left_edges.size() + right_edges.size()) + 1, place));
    std::vector<ByteEdge> edges;
    for (const ByteEdge& edge : left_edges) {
      int byte = edge.first;
      const auto go_on_alone = [&](int last) {
        if (operation == SetOperation::kOnlyLeft && byte <= last) {
          append_edge(edges, {static_cast<uint8_t>(byte), static_cast<uint8_t>(last),
                              id_of(edge.target, kGone)});
        }
      };
      for (const ByteEdge& other : right_edges) {
        if (other.last < byte || other.first > edge.last) continue;
        const int first = std::max<int>(other.first, byte);
        const int last = std::min(other.last, edge.last);
        go_on_alone(first - 1);
        append_edge(edges, {static_cast<uint8_t>(first), static_cast<uint8_t>(last),
                            id_of(edge.target, other.target)});
        byte = last + 1;
      }
      go_on_alone(edge.last);
    }
    result.states[current].edges = std::move(edges);
  }
  return result;
}

}  // namespace atom::grammar
