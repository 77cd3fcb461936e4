#include "grammar/grammar.h"

#include <algorithm>
#include <utility>

namespace atom::grammar {
namespace {

constexpr size_t kMaxNodes = 250'000;

// Whether any byte of the edge is usable.
bool is_usable(const ByteEdge& edge, const ByteSet& usable) {
  for (size_t byte = edge.first; byte <= edge.last; ++byte) {
    if (usable.test(byte)) return true;
  }
  return false;
}

// The node's successors whose productivity decides about its own.
template <class Visit>
void visit_successors(const Node& node, const Visit& visit) {
  for (const ByteEdge& edge : node.edges) visit(edge.target);
  for (const int32_t target : node.targets) visit(target);
  if (node.callee >= 0) visit(node.callee);
  if (node.next >= 0) visit(node.next);
}

}  // namespace

Result<int32_t> Grammar::add(Node node) {
  if (nodes_.size() >= kMaxNodes) {
    return error(ErrorCode::kInvalidArgument, "the grammar needs more than {} nodes", kMaxNodes);
  }
  nodes_.push_back(std::move(node));
  return static_cast<int32_t>(nodes_.size() - 1);
}

Result<int32_t> Grammar::add_bytes(std::string_view bytes, int32_t next) {
  for (size_t i = bytes.size(); i > 0; --i) {
    const auto byte = static_cast<uint8_t>(bytes[i - 1]);
    Node node;
    node.edges.push_back({byte, byte, next});
    next = ATOM_TRY(add(std::move(node)));
  }
  return next;
}

Result<int32_t> Grammar::add_split(std::vector<int32_t> targets) {
  Node node;
  node.kind = Node::Kind::kSplit;
  node.targets = std::move(targets);
  return add(std::move(node));
}

Result<int32_t> Grammar::add_call(int32_t callee, int32_t next) {
  Node node;
  node.kind = Node::Kind::kCall;
  node.callee = callee;
  node.next = next;
  return add(std::move(node));
}

Result<int32_t> Grammar::add_repeat(int32_t callee, int64_t least, int64_t most, int32_t next) {
  Node node;
  node.kind = Node::Kind::kRepeat;
  node.callee = callee;
  node.next = next;
  node.least = least;
  node.most = most;
  return add(std::move(node));
}

Result<int32_t> Grammar::add_dfa(const Dfa& dfa) {
  const auto first = static_cast<int32_t>(nodes_.size());
  for (const DfaState& state : dfa.states) {
    Node node;
    node.accepting = state.accepting;
    node.edges = state.edges;
    for (ByteEdge& edge : node.edges) edge.target += first;
    ATOM_TRY(add(std::move(node)));
  }
  return first;
}

// A node is productive if the rule can come to its end from there: the least fixed point.
std::vector<bool> Grammar::find_productive(const ByteSet& usable) const {
  const auto size = nodes_.size();
  std::vector<std::vector<int32_t>> dependents(size);
  for (size_t i = 0; i < size; ++i) {
    visit_successors(nodes_[i], [&](int32_t successor) {
      dependents[static_cast<size_t>(successor)].push_back(static_cast<int32_t>(i));
    });
  }
  std::vector<bool> productive(size, false);
  const auto is_productive = [&](int32_t i) { return productive[static_cast<size_t>(i)]; };
  const auto becomes_productive = [&](const Node& node) {
    switch (node.kind) {
      case Node::Kind::kBytes:
        return node.accepting ||
               std::any_of(node.edges.begin(), node.edges.end(), [&](const ByteEdge& edge) {
                 return is_productive(edge.target) && is_usable(edge, usable);
               });
      case Node::Kind::kSplit:
        return std::any_of(node.targets.begin(), node.targets.end(), is_productive);
      case Node::Kind::kCall:
        return is_productive(node.callee) && is_productive(node.next);
      case Node::Kind::kRepeat:
        return is_productive(node.next) &&
               (node.least == 0 || (node.most >= node.least && is_productive(node.callee)));
    }
    return false;
  };
  std::vector<int32_t> todo(size);
  for (size_t i = 0; i < size; ++i) todo[i] = static_cast<int32_t>(i);
  while (!todo.empty()) {
    const auto i = static_cast<size_t>(todo.back());
    todo.pop_back();
    if (productive[i] || !becomes_productive(nodes_[i])) continue;
    productive[i] = true;
    todo.insert(todo.end(), dependents[i].begin(), dependents[i].end());
  }
  return productive;
}

bool Grammar::prune(const ByteSet& usable) {
  const std::vector<bool> productive = find_productive(usable);
  const auto is_gone = [&](int32_t i) { return !productive[static_cast<size_t>(i)]; };
  for (Node& node : nodes_) {
    std::vector<ByteEdge> kept;
    for (const ByteEdge& edge : node.edges) {
      if (is_gone(edge.target)) continue;
      for (int byte = edge.first; byte <= edge.last; ++byte) {
        if (!usable.test(static_cast<size_t>(byte))) continue;
        const auto b = static_cast<uint8_t>(byte);
        if (!kept.empty() && kept.back().target == edge.target && kept.back().last + 1 == byte) {
          kept.back().last = b;
        } else {
          kept.push_back({b, b, edge.target});
        }
      }
    }
    node.edges = std::move(kept);
    std::erase_if(node.targets, is_gone);
    if (node.kind == Node::Kind::kRepeat && is_gone(node.callee)) node.most = 0;
  }
  return !is_gone(root_);
}

}  // namespace atom::grammar
