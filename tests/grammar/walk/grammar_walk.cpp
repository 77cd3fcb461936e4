// grammar_walk MODEL SCHEMAS.json COUNT: writes COUNT random documents of each schema, made with
// the model's real vocabulary, to stdout for `tools/check_grammar_goldens.py walks`; and to stderr
// what a mask costs the first time it is asked for and later.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "app/text_side.h"
#include "base/file.h"
#include "base/random.h"
#include "grammar/automaton.h"
#include "grammar/constraint.h"
#include "grammar/json_schema.h"
#include "grammar/random_document.h"
#include "io/model_source.h"

namespace atom::grammar {
namespace {

using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

struct Costs {
  std::vector<double> first_us;
  std::vector<double> again_us;
};

void print_quantiles(const char* what, std::vector<double> values) {
  if (values.empty()) return;
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
  };
  std::fprintf(stderr, "%-20s %8zu: median %9.2f us, p99 %9.2f us, longest %9.2f us\n", what,
               values.size(), at(0.5), at(0.99), at(1.0));
}

// The masks along a text, first in a fresh automaton, then in the same one.
Status measure(const std::string& schema, const TokenTrie& trie, const std::string& text,
               Costs& costs) {
  Grammar grammar = ATOM_TRY(grammar_of_json_schema(schema, "schema"));
  grammar.prune(trie.single_bytes());
  Automaton automaton(grammar, trie);
  for (std::vector<double>* times : {&costs.first_us, &costs.again_us}) {
    Automaton::StateId state = automaton.start();
    for (size_t i = 0; state != Automaton::kDead; ++i) {
      const size_t bytes = automaton.bytes();
      const auto start = Clock::now();
      automaton.tokens(state);
      const double us = microseconds_since(start);
      // A state may share the mask of one before it.
      if (times == &costs.again_us || automaton.bytes() > bytes) times->push_back(us);
      if (i == text.size()) break;
      state = automaton.step(state, static_cast<uint8_t>(text[i]));
    }
  }
  return {};
}

Result<Tokenizer> open_tokenizer(const std::string& model) {
  if (model.ends_with(".json")) {
    return Tokenizer::from_json(ATOM_TRY(read_text_file(model, 64 << 20)), "", model);
  }
  const std::unique_ptr<ModelSource> source = ATOM_TRY(open_model_source(model));
  return make_tokenizer(ATOM_TRY(source->text_assets()), source->origin());
}

Status run(const char* model, const char* schemas, int count) {
  const Tokenizer tokenizer = ATOM_TRY(open_tokenizer(model));
  const auto begin = Clock::now();
  const auto trie = std::make_shared<const TokenTrie>(tokenizer, tokenizer.end_of_generation_ids());
  std::fprintf(stderr, "%d tokens, %zu nodes in %.1f ms\n", trie->vocab_size(),
               trie->nodes().size(), microseconds_since(begin) / 1000);
  ConstraintCompiler compiler(trie);
  Random random(1);
  Costs costs;
  std::vector<double> compile_us;
  const auto cases =
      nlohmann::ordered_json::parse(ATOM_TRY(read_text_file(schemas, 64 << 20)), nullptr, false);
  for (const auto& row : cases) {
    const std::string schema = row.at("schema").dump();
    const auto start = Clock::now();
    const auto constraint = ATOM_TRY(compiler.json_schema(schema, schema));
    compile_us.push_back(microseconds_since(start));
    for (int i = 0; i < count; ++i) {
      const test::RandomDocument document = test::random_document(
          *constraint->clone(), *trie, random, static_cast<int>(random.below(60)), [] {});
      if (!document.ended) {
        return error(ErrorCode::kInternal, "{}: no end after {}", schema,
                     document.text.substr(0, 200));
      }
      const nlohmann::json line = {{"schema", nlohmann::json::parse(schema)},
                                   {"document", document.text}};
      std::printf("%s\n", line.dump().c_str());
      if (i == 0) ATOM_TRY(measure(schema, *trie, document.text, costs));
    }
  }
  print_quantiles("masks, first time", costs.first_us);
  print_quantiles("masks, later", costs.again_us);
  print_quantiles("compiled schemas", compile_us);
  return {};
}

}  // namespace
}  // namespace atom::grammar

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: grammar_walk MODEL SCHEMAS.json COUNT\n", stderr);
    return 2;
  }
  const atom::Status status = atom::grammar::run(argv[1], argv[2], std::atoi(argv[3]));
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  return 1;
}
