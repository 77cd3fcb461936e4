#include "grammar/constraint.h"

#include <algorithm>
#include <utility>

#include "grammar/automaton.h"
#include "grammar/json_schema.h"
#include "text/tokenizer.h"

namespace atom {
namespace {

using grammar::Automaton;
using grammar::Grammar;
using grammar::TokenTrie;

constexpr size_t kMaxEntries = 64;
constexpr size_t kMaxKeptBytes = 48 << 20;  // of states and masks of one grammar
constexpr int64_t kRegexWork = 20'000'000;

// A grammar and what is known about it, shared by all outputs that follow it.
struct SharedGrammar {
  Grammar grammar;
  std::shared_ptr<const TokenTrie> trie;
  std::mutex mutex;                      // of all automata
  std::shared_ptr<Automaton> automaton;  // replaced by a fresh one when it has grown too large;
                                         // outputs move over at their next mask
};

class GrammarConstraint : public TokenConstraint {
 public:
  explicit GrammarConstraint(std::shared_ptr<SharedGrammar> shared)
      : shared_(std::move(shared)), automaton_(shared_->automaton), state_(automaton_->start()) {}

  void allowed(std::span<uint64_t> mask) override {
    std::fill(mask.begin(), mask.end(), uint64_t{0});
    const std::lock_guard lock(shared_->mutex);
    move_to_current();
    if (!ended_) {
      const std::span<const uint64_t> tokens = automaton_->tokens(state_);
      if (tokens.empty()) return;
      std::copy_n(tokens.begin(), std::min(tokens.size(), mask.size()), mask.begin());
      if (!automaton_->is_complete(state_)) return;
    }
    for (const int32_t id : shared_->trie->end_ids()) {
      const auto word = static_cast<size_t>(id) / 64;
      if (word < mask.size()) mask[word] |= uint64_t{1} << (id % 64);
    }
  }

  Status accept(int32_t token) override {
    const std::lock_guard lock(shared_->mutex);
    const std::span<const int32_t> ends = shared_->trie->end_ids();
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
      if (!automaton_->is_complete(state_)) {
        return error(ErrorCode::kInternal, "token {} ends an output that is not complete", token);
      }
      ended_ = true;
      return {};
    }
    const std::string_view bytes = shared_->trie->bytes(token);
    const Automaton::StateId next =
        bytes.empty() || ended_ ? Automaton::kDead : automaton_->step(state_, bytes);
    if (next == Automaton::kDead) {
      return error(ErrorCode::kInternal, "token {} is not what the output's grammar allows", token);
    }
    state_ = next;
    return {};
  }

  std::unique_ptr<TokenConstraint> clone() const override {
    return std::make_unique<GrammarConstraint>(*this);
  }

 private:
  void move_to_current() {
    std::shared_ptr<Automaton>& current = shared_->automaton;
    if (current->bytes() > kMaxKeptBytes) {
      current = std::make_shared<Automaton>(shared_->grammar, *shared_->trie);
    }
    if (automaton_ == current) return;
    state_ = current->import(*automaton_, state_);
    automaton_ = current;
  }

  std::shared_ptr<SharedGrammar> shared_;
  std::shared_ptr<Automaton> automaton_;  // that state_ belongs to
  Automaton::StateId state_;
  bool ended_ = false;  // an end of generation was accepted
};

}  // namespace

Result<std::unique_ptr<TokenConstraint>> make_constraint(Grammar grammar,
                                                         std::shared_ptr<const TokenTrie> trie) {
  // Only what single-byte tokens can spell is certain to be completed.
  if (!grammar.prune(trie->single_bytes())) {
    return error(ErrorCode::kUnsupported,
                 "the model's vocabulary lacks the tokens to spell any such text");
  }
  auto shared = std::make_shared<SharedGrammar>();
  shared->grammar = std::move(grammar);
  shared->trie = std::move(trie);
  shared->automaton = std::make_shared<Automaton>(shared->grammar, *shared->trie);
  return std::unique_ptr<TokenConstraint>(std::make_unique<GrammarConstraint>(std::move(shared)));
}

ConstraintCompiler::ConstraintCompiler(const Tokenizer& tokenizer, std::vector<int32_t> end_ids)
    : tokenizer_(&tokenizer), end_ids_(std::move(end_ids)) {}
ConstraintCompiler::ConstraintCompiler(std::shared_ptr<const TokenTrie> trie)
    : trie_(std::move(trie)) {}
ConstraintCompiler::~ConstraintCompiler() = default;

// Takes megabytes, which a server whose outputs nobody constrains does without.
const std::shared_ptr<const TokenTrie>& ConstraintCompiler::trie() {
  std::call_once(trie_made_, [&] {
    if (trie_ == nullptr) {
      trie_ = std::make_shared<const TokenTrie>(*tokenizer_, std::move(end_ids_));
    }
  });
  return trie_;
}

ConstraintCompiler::Made ConstraintCompiler::json_schema(std::string_view schema,
                                                         std::string_view place) {
  return find_or_make(fmt::format("schema {}", schema), place,
                      [&] { return grammar::grammar_of_json_schema(schema, place); });
}

ConstraintCompiler::Made ConstraintCompiler::json_object() {
  return json_schema(R"({"type": "object"})", "JSON object");
}

ConstraintCompiler::Made ConstraintCompiler::regex(std::string_view pattern,
                                                   std::string_view place) {
  return find_or_make(fmt::format("regex {}", pattern), place,
                      [&] { return grammar::grammar_of_regex(pattern, place); });
}

ConstraintCompiler::Made ConstraintCompiler::choice(std::span<const std::string> texts,
                                                    std::string_view place) {
  std::string key = "choice";
  for (const std::string& text : texts) key += fmt::format(" {}:{}", text.size(), text);
  return find_or_make(std::move(key), place,
                      [&] { return grammar::grammar_of_choice(texts, place); });
}

template <class Compile>
ConstraintCompiler::Made ConstraintCompiler::find_or_make(std::string key, std::string_view place,
                                                          const Compile& compile) {
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = index_.find(key); found != index_.end()) {
      entries_.splice(entries_.begin(), entries_, found->second);
      return found->second->constraint;
    }
  }
  Made made = make(compile(), place);
  if (!made.ok()) return made;
  const std::lock_guard lock(mutex_);
  if (index_.find(key) != index_.end()) return made;  // another thread was faster
  entries_.push_front({std::move(key), *made});
  index_.emplace(entries_.front().key, entries_.begin());
  if (entries_.size() > kMaxEntries) {
    index_.erase(entries_.back().key);
    entries_.pop_back();
  }
  return made;
}

ConstraintCompiler::Made ConstraintCompiler::make(Result<Grammar> grammar, std::string_view place) {
  Result<std::unique_ptr<TokenConstraint>> constraint =
      make_constraint(ATOM_TRY(std::move(grammar)), trie());
  if (!constraint.ok()) return constraint.status().with_context(std::string(place));
  return std::shared_ptr<const TokenConstraint>(std::move(constraint).value());
}

namespace grammar {
namespace {

Result<Grammar> grammar_of_dfa(const Dfa& dfa, std::string_view place) {
  Grammar grammar;
  const Result<int32_t> root = grammar.add_dfa(dfa);
  if (!root.ok()) return root.status().with_context(std::string(place));
  grammar.set_root(*root);
  if (!grammar.prune(ByteSet().set())) {
    return error(ErrorCode::kInvalidArgument, "{}: no text matches", place);
  }
  return grammar;
}

}  // namespace

Result<Grammar> grammar_of_regex(std::string_view pattern, std::string_view place) {
  WorkBudget budget(kRegexWork);
  return grammar_of_dfa(
      ATOM_TRY(compile_pattern(pattern, /*search=*/false, CharSpelling::kUtf8, budget, place)),
      place);
}

Result<Grammar> grammar_of_choice(std::span<const std::string> texts, std::string_view place) {
  WorkBudget budget(kRegexWork);
  return grammar_of_dfa(ATOM_TRY(compile_texts(texts, budget, place)), place);
}

}  // namespace grammar
}  // namespace atom
