// A grammar over bytes: rules that call each other, each a small automaton. JSON's nesting needs
// the calls, everything below it (strings, numbers, keywords) is deterministic.
#pragma once

#include <bitset>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "grammar/dfa.h"

namespace atom::grammar {

// A place in a rule. A rule is named by the node it begins with, and ends at any accepting node.
struct Node {
  enum class Kind : uint8_t {
    kBytes,   // reads a byte along one of the edges; accepting: the rule may end here
    kSplit,   // goes on at any of the targets
    kCall,    // reads what the rule `callee` reads, then goes on at `next`
    kRepeat,  // the same least to most times
  };
  static constexpr int64_t kUnbounded = std::numeric_limits<int64_t>::max();

  Kind kind = Kind::kBytes;
  bool accepting = false;
  std::vector<ByteEdge> edges;  // ascending, disjoint
  std::vector<int32_t> targets;
  int32_t callee = -1;
  int32_t next = -1;
  int64_t least = 0;
  int64_t most = 0;
};

using ByteSet = std::bitset<256>;

// Invariants, which builders keep: what a node calls reads at least one byte, and no rule comes
// back to its own start before it has read one.
class Grammar {
 public:
  // Nodes may be filled in after others refer to them. Fails at the limit on a grammar's size.
  Result<int32_t> add(Node node = {});
  Result<int32_t> add_bytes(std::string_view bytes, int32_t next);
  Result<int32_t> add_split(std::vector<int32_t> targets);
  Result<int32_t> add_call(int32_t callee, int32_t next);
  Result<int32_t> add_repeat(int32_t callee, int64_t least, int64_t most, int32_t next);
  // The automaton's states as a rule.
  Result<int32_t> add_dfa(const Dfa& dfa);

  int32_t root() const { return root_; }
  void set_root(int32_t root) { root_ = root; }
  size_t size() const { return nodes_.size(); }
  Node& node(int32_t i) { return nodes_[static_cast<size_t>(i)]; }
  const Node& node(int32_t i) const { return nodes_[static_cast<size_t>(i)]; }

  // Takes out every way that cannot be finished with these bytes, so that whatever follows the
  // grammar can be completed. False where nothing is left at all.
  bool prune(const ByteSet& usable);

 private:
  std::vector<bool> find_productive(const ByteSet& usable) const;

  std::vector<Node> nodes_;
  int32_t root_ = -1;
};

}  // namespace atom::grammar
