#include "grammar/automaton.h"

#include <algorithm>
#include <bitset>
#include <limits>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace atom::grammar {
namespace {

constexpr int64_t kStateWork = 16;  // what a new state counts for beside its configurations

}  // namespace

// Frames of rules that are called in here get numbers below zero until the set is complete, because
// callers may be added to them.
class Automaton::Closure {
 public:
  explicit Closure(Automaton& automaton) : automaton_(automaton) {}

  void add(int32_t node, int32_t frame) {
    todo_.push_back({node, frame});
    while (!todo_.empty()) {
      const Configuration next = todo_.back();
      todo_.pop_back();
      expand(next);
    }
  }

  StateId intern() {
    frame_ids_.assign(new_frames_.size(), kUnknown);
    std::vector<Configuration> configurations;
    for (const Configuration& c : reading_) {
      configurations.push_back({c.node, final_frame(c.frame)});
    }
    std::sort(configurations.begin(), configurations.end());
    configurations.erase(std::unique(configurations.begin(), configurations.end()),
                         configurations.end());
    return automaton_.intern_state(std::move(configurations), complete_);
  }

 private:
  void expand(Configuration c) {
    if (!seen_
             .insert(static_cast<uint64_t>(static_cast<uint32_t>(c.node)) << 32 |
                     static_cast<uint32_t>(c.frame))
             .second) {
      return;
    }
    ++automaton_.work_;
    const Node& node = automaton_.grammar_.node(c.node);
    switch (node.kind) {
      case Node::Kind::kBytes:
        if (!node.edges.empty()) reading_.push_back(c);
        if (node.accepting) leave_rule(c.frame);
        break;
      case Node::Kind::kSplit:
        for (const int32_t target : node.targets) todo_.push_back({target, c.frame});
        break;
      case Node::Kind::kCall:
        call(node.callee, {c.node, c.frame, 0, 0});
        break;
      case Node::Kind::kRepeat:
        repeat(c.node, node.least, node.most, c.frame);
        break;
    }
  }

  void leave_rule(int32_t frame) {
    ATOM_CHECK(frame >= 0, "what a node calls reads at least one byte");
    if (frame == kBottom) complete_ = true;
    for (const Return& r : *automaton_.frames_[index(frame)]) {
      ++automaton_.work_;
      const Node& caller = automaton_.grammar_.node(r.node);
      if (caller.kind == Node::Kind::kRepeat) {
        repeat(r.node, r.least, r.most, r.frame);
      } else {
        todo_.push_back({caller.next, r.frame});
      }
    }
  }

  void repeat(int32_t node, int64_t least, int64_t most, int32_t frame) {
    const Node& repeat = automaton_.grammar_.node(node);
    if (least == 0) todo_.push_back({repeat.next, frame});
    if (most == 0) return;
    call(repeat.callee, {node, frame, std::max<int64_t>(0, least - 1),
                         most == Node::kUnbounded ? most : most - 1});
  }

  void call(int32_t rule, Return back) {
    const auto [it, is_new] = frame_of_rule_.try_emplace(rule, new_frames_.size());
    if (is_new) {
      new_frames_.emplace_back();
      todo_.push_back({rule, -1 - static_cast<int32_t>(it->second)});
    }
    new_frames_[it->second].push_back(back);
  }

  // A new frame's id, its callers' frames first. Rules cannot call each other in a circle without
  // reading, so this comes to an end.
  int32_t final_frame(int32_t frame) {
    if (frame >= 0) return frame;
    const auto i = static_cast<size_t>(-1 - frame);
    if (frame_ids_[i] == kUnknown) {
      std::vector<Return> returns = new_frames_[i];
      for (Return& r : returns) r.frame = final_frame(r.frame);
      frame_ids_[i] = automaton_.intern_frame(std::move(returns));
    }
    return frame_ids_[i];
  }

  Automaton& automaton_;
  std::vector<Configuration> todo_;
  std::unordered_set<uint64_t> seen_;
  std::vector<Configuration> reading_;
  std::vector<std::vector<Return>> new_frames_;
  std::unordered_map<int32_t, size_t> frame_of_rule_;  // index into new_frames_
  std::vector<int32_t> frame_ids_;                     // by new frame
  bool complete_ = false;
};

Automaton::Automaton(const Grammar& grammar, const TokenTrie& trie)
    : grammar_(grammar),
      trie_(trie),
      count_limit_(static_cast<int64_t>(trie.longest_token()) + 1),
      path_(static_cast<size_t>(trie.longest_token()) + 1) {
  // Bytes that no edge tells apart are one class.
  std::bitset<257> starts;
  for (size_t i = 0; i < grammar.size(); ++i) {
    for (const ByteEdge& edge : grammar.node(static_cast<int32_t>(i)).edges) {
      starts.set(edge.first);
      starts.set(static_cast<size_t>(edge.last) + 1);
    }
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    if (byte > 0 && starts.test(byte)) ++classes_;
    class_of_[byte] = static_cast<uint8_t>(classes_);
  }
  ++classes_;

  const int32_t bottom = intern_frame({});
  ATOM_CHECK(bottom == kBottom, "the root's frame is the first");
  Closure closure(*this);
  closure.add(grammar_.root(), kBottom);
  start_ = closure.intern();
}

int32_t Automaton::intern_frame(std::vector<Return> returns) {
  std::sort(returns.begin(), returns.end());
  returns.erase(std::unique(returns.begin(), returns.end()), returns.end());
  const auto [it, is_new] =
      frame_ids_.try_emplace(std::move(returns), static_cast<int32_t>(frames_.size()));
  const int32_t id = it->second;
  if (!is_new) return id;
  frames_.push_back(&it->first);
  clamped_frames_.push_back(id);
  bytes_ += 128 + it->first.size() * sizeof(Return);

  std::vector<Return> clamped = it->first;
  for (Return& r : clamped) {
    r.frame = clamped_frames_[index(r.frame)];
    r.least = std::min(r.least, count_limit_);
    r.most = std::min(r.most, count_limit_);
  }
  // Its own clamped frame is itself, so this goes one level deep.
  if (clamped != it->first) clamped_frames_[index(id)] = intern_frame(std::move(clamped));
  return id;
}

Automaton::StateId Automaton::intern_state(std::vector<Configuration> configurations,
                                           bool complete) {
  if (configurations.empty() && !complete) return kDead;
  // A complete state has a configuration more than its incomplete twin: no node, in no frame.
  if (complete) configurations.push_back({std::numeric_limits<int32_t>::max(), kBottom});
  const auto [it, is_new] =
      state_ids_.try_emplace(std::move(configurations), static_cast<StateId>(states_.size()));
  if (is_new) {
    State& state = states_.emplace_back();
    state.configurations = it->first;
    if (complete) state.configurations.pop_back();
    state.complete = complete;
    work_ += kStateWork;
    bytes_ += 256 + 2 * it->first.size() * sizeof(Configuration);
  }
  return it->second;
}

Automaton::StateId Automaton::step(StateId state, uint8_t byte) {
  const std::vector<StateId>& next = states_[index(state)].next;
  const size_t byte_class = class_of_[byte];
  if (!next.empty() && next[byte_class] != kUnknown) return next[byte_class];
  return find_step(state, byte);
}

Automaton::StateId Automaton::step(StateId state, std::string_view bytes) {
  for (const char c : bytes) {
    if (state == kDead) break;
    state = step(state, static_cast<uint8_t>(c));
  }
  return state;
}

Automaton::StateId Automaton::find_step(StateId state, uint8_t byte) {
  Closure closure(*this);
  for (const Configuration& c : states_[index(state)].configurations) {
    const std::vector<ByteEdge>& edges = grammar_.node(c.node).edges;
    const auto edge = std::partition_point(edges.begin(), edges.end(),
                                           [&](const ByteEdge& e) { return e.last < byte; });
    if (edge != edges.end() && edge->first <= byte) closure.add(edge->target, c.frame);
    ++work_;
  }
  const StateId target = closure.intern();
  std::vector<StateId>& next = states_[index(state)].next;
  if (next.empty()) {
    next.assign(classes_, kUnknown);
    bytes_ += classes_ * sizeof(StateId);
  }
  next[class_of_[byte]] = target;
  return target;
}

// Where more repeats are left than a token has bytes, it does not matter how many: such states
// share a mask.
Automaton::StateId Automaton::mask_state_of(StateId state) {
  if (states_[index(state)].mask_state == kUnknown) {
    std::vector<Configuration> clamped = states_[index(state)].configurations;
    for (Configuration& c : clamped) c.frame = clamped_frames_[index(c.frame)];
    std::sort(clamped.begin(), clamped.end());
    clamped.erase(std::unique(clamped.begin(), clamped.end()), clamped.end());
    const StateId mask_state = intern_state(std::move(clamped), is_complete(state));
    states_[index(state)].mask_state = mask_state;
  }
  return states_[index(state)].mask_state;
}

std::span<const uint64_t> Automaton::tokens(StateId state, int64_t max_work) {
  const StateId shared = mask_state_of(state);
  if (states_[index(shared)].mask.empty()) fill_mask(shared, max_work);
  return states_[index(shared)].mask;
}

void Automaton::fill_mask(StateId state, int64_t max_work) {
  const int64_t work_end = work_ + max_work;
  std::vector<uint64_t> mask((static_cast<size_t>(trie_.vocab_size()) + 63) / 64, 0);
  const std::span<const TokenTrie::Node> nodes = trie_.nodes();
  const std::span<const int32_t> ids = trie_.ids();
  path_[0] = state;
  for (size_t i = 0; i < nodes.size();) {
    const TokenTrie::Node& node = nodes[i];
    const StateId reached = step(path_[node.depth - 1], node.byte);
    if (reached == kDead) {
      i = node.end;
      continue;
    }
    if (work_ > work_end) return;
    path_[node.depth] = reached;
    for (size_t t = i == 0 ? 0 : nodes[i - 1].tokens_end; t < node.tokens_end; ++t) {
      const auto id = static_cast<size_t>(ids[t]);
      mask[id / 64] |= uint64_t{1} << (id % 64);
    }
    ++i;
  }
  bytes_ += mask.size() * sizeof(uint64_t);
  states_[index(state)].mask = std::move(mask);
}

Automaton::StateId Automaton::import(const Automaton& other, StateId state) {
  // Callers' frames are older than the frames of what they call: ids ascend from the bottom up.
  std::vector<bool> wanted(other.frames_.size(), false);
  std::vector<Configuration> configurations = other.states_[index(state)].configurations;
  for (const Configuration& c : configurations) wanted[index(c.frame)] = true;
  for (size_t i = wanted.size(); i > 0; --i) {
    if (!wanted[i - 1]) continue;
    for (const Return& r : *other.frames_[i - 1]) wanted[index(r.frame)] = true;
  }
  std::vector<int32_t> ids(other.frames_.size(), kUnknown);
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (!wanted[i]) continue;
    std::vector<Return> returns = *other.frames_[i];
    for (Return& r : returns) r.frame = ids[index(r.frame)];
    ids[i] = intern_frame(std::move(returns));
  }
  for (Configuration& c : configurations) c.frame = ids[index(c.frame)];
  std::sort(configurations.begin(), configurations.end());
  return intern_state(std::move(configurations), other.is_complete(state));
}

}  // namespace atom::grammar
