// Constrained output: what a request asks its text to be, turned into masks over the vocabulary.
//
//   ConstraintCompiler compiler(*model.tokenizer, model.weights->config.eos_ids);  // once a model
//   request.constraint = ATOM_TRY(compiler.json_schema(text, "response_format"));  // any thread
//
// The request's text is then a document of the schema (or a match of the expression), whole where
// the output ends by itself, and the beginning of one where max_tokens or a stop string cut it.
// docs/constrained_output.md says what is supported.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "engine/token_constraint.h"
#include "grammar/grammar.h"
#include "grammar/token_trie.h"

namespace atom {

class Tokenizer;

// Makes constraints for one vocabulary. Thread-safe. The constraints of equal requests share what
// was found out about their grammar, and the last ones used are kept: asking for the same schema
// again costs nothing.
class ConstraintCompiler {
 public:
  // end_ids: the tokens that end an output by themselves, allowed where it is complete. The
  // tokenizer is asked when the first constraint is made, and must live until then.
  ConstraintCompiler(const Tokenizer& tokenizer, std::vector<int32_t> end_ids);
  explicit ConstraintCompiler(std::shared_ptr<const grammar::TokenTrie> trie);
  ~ConstraintCompiler();

  // place names the request's field in messages. All fail (kInvalidArgument, kUnsupported) with the
  // place and what is wrong there, and where the vocabulary lacks the tokens to spell any document.
  //
  // schema: JSON text, because the order of its properties is the order in the output.
  Result<std::shared_ptr<const TokenConstraint>> json_schema(std::string_view schema,
                                                             std::string_view place);
  // Any JSON object.
  Result<std::shared_ptr<const TokenConstraint>> json_object();
  // A text that the pattern matches as a whole.
  Result<std::shared_ptr<const TokenConstraint>> regex(std::string_view pattern,
                                                       std::string_view place);
  // One of these texts.
  Result<std::shared_ptr<const TokenConstraint>> choice(std::span<const std::string> texts,
                                                        std::string_view place);

 private:
  using Made = Result<std::shared_ptr<const TokenConstraint>>;
  template <class Compile>
  Made find_or_make(std::string key, std::string_view place, const Compile& compile);
  Made make(Result<grammar::Grammar> grammar, std::string_view place);
  const std::shared_ptr<const grammar::TokenTrie>& trie();

  struct Entry {
    std::string key;
    std::shared_ptr<const TokenConstraint> constraint;
  };
  const Tokenizer* tokenizer_ = nullptr;
  std::vector<int32_t> end_ids_;
  std::once_flag trie_made_;
  std::shared_ptr<const grammar::TokenTrie> trie_;  // through trie()
  std::mutex mutex_;
  std::list<Entry> entries_;  // the one used last in front
  std::unordered_map<std::string_view, std::list<Entry>::iterator> index_;
};

// What ConstraintCompiler makes, for those that have a grammar already. Fails where the vocabulary
// lacks the bytes.
Result<std::unique_ptr<TokenConstraint>> make_constraint(
    grammar::Grammar grammar, std::shared_ptr<const grammar::TokenTrie> trie);

namespace grammar {

// The grammars behind them.
Result<Grammar> grammar_of_regex(std::string_view pattern, std::string_view place);
Result<Grammar> grammar_of_choice(std::span<const std::string> texts, std::string_view place);

}  // namespace grammar
}  // namespace atom
