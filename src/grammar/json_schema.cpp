#include "grammar/json_schema.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "grammar/schema_conditions.h"

namespace atom::grammar {
namespace {

constexpr int64_t kMaxWork = 20'000'000;

// What may stand between tokens: nothing, one blank, or a line break or two and an indentation.
// Unbounded white space would let a model go on with it forever.
constexpr std::string_view kWhiteSpace = " |\\n{1,2}[ \\t]{0,20}";
// A character of a string in any spelling; surrogates come in pairs.
constexpr std::string_view kAnyCharacter =
    "[^\"\\\\\\x00-\\x1f]|\\\\(?:[\"\\\\/"
    "bfnrt]|u(?:[0-9abcefABCEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}"
    "|[dD][89abAB][0-9a-fA-F]{2}\\\\u[dD][c-fC-F][0-9a-fA-F]{2}))";
// A character in the spelling that JSON writers choose, as in CharSpelling::kJson.
constexpr std::string_view kPlainCharacter =
    "[^\"\\\\\\x00-\\x1f]|\\\\(?:[\"\\\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f]))";

class SchemaCompiler {
 public:
  explicit SchemaCompiler(const SchemaDocument& document)
      : document_(document), budget_(kMaxWork), reader_(document, budget_) {}

  Result<Grammar> compile() {
    ATOM_TRY(add_terminals());
    grammar_.set_root(ATOM_TRY(rule_of({document_.root()})));
    while (!queue_.empty()) {
      const auto [node, schemas] = std::move(queue_.back());
      queue_.pop_back();
      Result<std::vector<int32_t>> ways = ways_of(schemas);
      if (!ways.ok()) return ways.status();
      grammar_.node(node).targets = std::move(ways).value();
    }
    if (!grammar_.prune(ByteSet().set())) {
      return document_.invalid(document_.root(), "no finite document satisfies the schema");
    }
    return std::move(grammar_);
  }

 private:
  Status add_terminals() {
    end_ = ATOM_TRY(grammar_.add());
    grammar_.node(end_).accepting = true;
    white_space_ = ATOM_TRY(add_pattern(kWhiteSpace));
    character_ = ATOM_TRY(add_pattern(kAnyCharacter));
    string_ = ATOM_TRY(add_pattern(fmt::format("\"(?:{})*\"", kAnyCharacter)));
    return {};
  }

  Result<int32_t> add_pattern(std::string_view pattern) {
    return grammar_.add_dfa(
        ATOM_TRY(compile_pattern(pattern, /*search=*/false, CharSpelling::kUtf8, budget_, "JSON")));
  }

  // The rule of a value that satisfies the schemas: a split whose targets come later.
  Result<int32_t> rule_of(const Conjunction& schemas) {
    std::vector<const OrderedJson*> key;
    for (const SchemaRef& schema : schemas) {
      const bool anything = schema.json->is_object() && schema.json->empty();
      if (!anything && std::find(key.begin(), key.end(), schema.json) == key.end()) {
        key.push_back(schema.json);
      }
    }
    const auto found = rules_.find(key);
    if (found != rules_.end()) return found->second;
    const int32_t node = ATOM_TRY(grammar_.add_split({}));
    rules_.emplace(std::move(key), node);
    queue_.emplace_back(node, schemas);
    return node;
  }

  Result<std::vector<int32_t>> ways_of(const Conjunction& schemas) {
    std::vector<int32_t> ways;
    for (const Conditions& conditions : ATOM_TRY(reader_.alternatives(schemas))) {
      if (conditions.values) {
        ways.push_back(ATOM_TRY(add_values(conditions)));
        continue;
      }
      std::vector<std::string> words;
      if ((conditions.types & kNull) != 0) words.push_back("null");
      if ((conditions.types & kBoolean) != 0) words.insert(words.end(), {"true", "false"});
      if (!words.empty()) ways.push_back(ATOM_TRY(add_texts(words, conditions)));
      if ((conditions.types & kNumber) != 0) ways.push_back(ATOM_TRY(add_number(conditions)));
      if ((conditions.types & kString) != 0) ways.push_back(ATOM_TRY(add_string(conditions)));
      if ((conditions.types & kArray) != 0) ways.push_back(ATOM_TRY(add_array(conditions)));
      if ((conditions.types & kObject) != 0) ways.push_back(ATOM_TRY(add_object(conditions)));
    }
    return ways;
  }

  std::string place_of(const Conditions& conditions) const {
    return document_.place_of(conditions.schemas.empty() ? document_.root()
                                                         : conditions.schemas[0]);
  }

  Result<int32_t> add_texts(const std::vector<std::string>& texts, const Conditions& conditions) {
    return grammar_.add_dfa(ATOM_TRY(compile_texts(texts, budget_, place_of(conditions))));
  }

  Result<int32_t> add_values(const Conditions& conditions) {
    std::vector<std::string> texts;
    for (const OrderedJson* value : *conditions.values) texts.push_back(value->dump());
    return add_texts(texts, conditions);
  }

  Result<int32_t> add_number(const Conditions& conditions) {
    NumberConditions number = conditions.number;
    number.integer |= (conditions.types & kNumber) == kInteger;
    return grammar_.add_dfa(ATOM_TRY(number_automaton(number, budget_, place_of(conditions))));
  }

  Result<int32_t> add_string(const Conditions& conditions) {
    const bool any_length = conditions.min_length == 0 && conditions.max_length == Node::kUnbounded;
    if (conditions.patterns.empty()) {
      if (any_length) return string_;
      const int32_t close = ATOM_TRY(grammar_.add_bytes("\"", end_));
      const int32_t content = ATOM_TRY(
          grammar_.add_repeat(character_, conditions.min_length, conditions.max_length, close));
      return grammar_.add_bytes("\"", content);
    }
    std::vector<Dfa> parts;
    for (const StringPattern& pattern : conditions.patterns) {
      parts.push_back(ATOM_TRY(compile_pattern(pattern.pattern, pattern.search, CharSpelling::kJson,
                                               budget_, pattern.place)));
    }
    const std::string place = place_of(conditions);
    if (!any_length) {
      const RegexNode length =
          regex_repeat(regex_chars(CharSet::all()), conditions.min_length,
                       conditions.max_length == Node::kUnbounded ? RegexNode::kUnbounded
                                                                 : conditions.max_length);
      parts.push_back(ATOM_TRY(compile_regex(length, CharSpelling::kJson, budget_, place)));
    }
    Dfa content = std::move(parts[0]);
    for (size_t i = 1; i < parts.size(); ++i) {
      content = ATOM_TRY(combine(content, parts[i], SetOperation::kBoth, budget_, place));
    }
    return add_quoted(content);
  }

  // The automaton of a string's content, which has no quotes in it, between quotes.
  Result<int32_t> add_quoted(const Dfa& content) {
    const int32_t first = ATOM_TRY(grammar_.add_dfa(content));
    for (size_t i = 0; i < content.states.size(); ++i) {
      if (!content.states[i].accepting) continue;
      Node& node = grammar_.node(first + static_cast<int32_t>(i));
      node.accepting = false;
      const auto behind = std::find_if(node.edges.begin(), node.edges.end(),
                                       [](const ByteEdge& edge) { return edge.first > '"'; });
      node.edges.insert(behind, {'"', '"', end_});
    }
    return grammar_.add_bytes("\"", first);
  }

  // White space or none, then `next`.
  Result<int32_t> spaced(int32_t next) {
    return grammar_.add_split({ATOM_TRY(grammar_.add_call(white_space_, next)), next});
  }

  // Elements behind the first n that differ are a rule ("," element) that repeats.
  Result<int32_t> add_array(const Conditions& conditions) {
    const auto distinct = static_cast<int64_t>(conditions.distinct_elements());
    const int32_t close = ATOM_TRY(spaced(ATOM_TRY(grammar_.add_bytes("]", end_))));
    const int64_t least = conditions.min_items;
    int64_t most = conditions.max_items;
    const std::optional<Conjunction> rest =
        conditions.element(static_cast<size_t>(distinct), document_);
    if (!rest) most = std::min(most, distinct);

    // The way on after element i - 1, from the last one to the first.
    int32_t after = close;
    int32_t rest_rule = -1;
    if (rest && most > distinct) {
      rest_rule = ATOM_TRY(rule_of(*rest));
      const int32_t more = ATOM_TRY(
          grammar_.add_bytes(",", ATOM_TRY(spaced(ATOM_TRY(grammar_.add_call(rest_rule, end_))))));
      // Without elements of their own, the first one of the rest has no comma.
      const int64_t read = std::max<int64_t>(distinct, 1);
      after = ATOM_TRY(grammar_.add_repeat(more, std::max<int64_t>(0, least - read),
                                           most == Node::kUnbounded ? most : most - read, close));
    } else if (least > distinct) {
      after = ATOM_TRY(grammar_.add_split({}));  // more elements than there may be
    }
    int32_t first = -1;  // element 0 and what follows
    if (distinct == 0) {
      first = rest_rule < 0 ? ATOM_TRY(grammar_.add_split({}))
                            : ATOM_TRY(grammar_.add_call(rest_rule, after));
    }
    for (int64_t i = distinct - 1; i >= 0; --i) {
      std::vector<int32_t> ways;
      const std::optional<Conjunction> element =
          conditions.element(static_cast<size_t>(i), document_);
      if (element && i < most) {
        ways.push_back(ATOM_TRY(grammar_.add_call(ATOM_TRY(rule_of(*element)), after)));
      }
      first = ATOM_TRY(grammar_.add_split(std::move(ways)));
      ways = {ATOM_TRY(grammar_.add_bytes(",", ATOM_TRY(spaced(first))))};
      if (i >= least) ways.push_back(close);
      after = ATOM_TRY(grammar_.add_split(std::move(ways)));
    }
    std::vector<int32_t> ways = {ATOM_TRY(spaced(first))};
    if (least == 0) ways.push_back(close);
    return grammar_.add_bytes("[", ATOM_TRY(grammar_.add_split(std::move(ways))));
  }

  // Properties in order, each optional one there or not:
  //   choose[i]   behind "{" or ",": property i, or (if that is optional) choose[i + 1]
  //   after[i]    behind property i - 1: "," choose[i], or "}" if nothing required is left
  Result<int32_t> add_object(const Conditions& conditions) {
    const std::vector<std::string> names = conditions.property_names();
    ATOM_TRY(budget_.spend(conditions.member_work(), place_of(conditions)));
    const int32_t close = ATOM_TRY(spaced(ATOM_TRY(grammar_.add_bytes("}", end_))));
    int32_t choose = ATOM_TRY(grammar_.add_split({}));
    int32_t after = ATOM_TRY(
        grammar_.add_split({ATOM_TRY(grammar_.add_bytes(",", ATOM_TRY(spaced(choose)))), close}));
    if (const std::optional<Conjunction> additional = conditions.additional(document_)) {
      const int32_t value = ATOM_TRY(grammar_.add_call(ATOM_TRY(rule_of(*additional)), after));
      const int32_t colon = ATOM_TRY(grammar_.add_bytes(":", ATOM_TRY(spaced(value))));
      const int32_t key =
          ATOM_TRY(grammar_.add_call(ATOM_TRY(add_other_names(names, conditions)), colon));
      grammar_.node(choose).targets.push_back(key);
    }
    bool may_close = true;
    for (size_t i = names.size(); i > 0; --i) {
      const std::string& name = names[i - 1];
      const bool required = conditions.required.count(name) > 0;
      std::vector<int32_t> ways;
      if (const std::optional<Conjunction> property = conditions.property(name, document_)) {
        const int32_t value = ATOM_TRY(grammar_.add_call(ATOM_TRY(rule_of(*property)), after));
        ways.push_back(
            ATOM_TRY(grammar_.add_bytes(OrderedJson(name).dump() + ":", ATOM_TRY(spaced(value)))));
      }
      if (!required) ways.push_back(choose);
      choose = ATOM_TRY(grammar_.add_split(std::move(ways)));
      may_close &= !required;
      ways = {ATOM_TRY(grammar_.add_bytes(",", ATOM_TRY(spaced(choose))))};
      if (may_close) ways.push_back(close);
      after = ATOM_TRY(grammar_.add_split(std::move(ways)));
    }
    std::vector<int32_t> ways = {ATOM_TRY(spaced(choose))};
    if (may_close) ways.push_back(close);
    return grammar_.add_bytes("{", ATOM_TRY(grammar_.add_split(std::move(ways))));
  }

  // Keys other than these. Each string has one spelling here, so that no key can be one of the
  // declared ones in disguise.
  Result<int32_t> add_other_names(const std::vector<std::string>& names,
                                  const Conditions& conditions) {
    if (names.empty()) return string_;
    const std::string place = place_of(conditions);
    const Dfa any =
        ATOM_TRY(compile_pattern(fmt::format("\"(?:{})*\"", kPlainCharacter), /*search=*/false,
                                 CharSpelling::kUtf8, budget_, place));
    std::vector<std::string> texts;
    for (const std::string& name : names) texts.push_back(OrderedJson(name).dump());
    const Dfa declared = ATOM_TRY(compile_texts(texts, budget_, place));
    return grammar_.add_dfa(
        ATOM_TRY(combine(any, declared, SetOperation::kOnlyLeft, budget_, place)));
  }

  const SchemaDocument& document_;
  WorkBudget budget_;
  ConditionReader reader_;
  Grammar grammar_;
  std::map<std::vector<const OrderedJson*>, int32_t> rules_;  // by what must hold
  std::vector<std::pair<int32_t, Conjunction>> queue_;        // rules without targets yet
  // Rules that all schemas share.
  int32_t end_ = -1;
  int32_t white_space_ = -1;
  int32_t character_ = -1;
  int32_t string_ = -1;
};

}  // namespace

Result<Grammar> grammar_of_json_schema(std::string_view schema, std::string_view place) {
  const SchemaDocument document = ATOM_TRY(SchemaDocument::parse(schema, std::string(place)));
  Result<Grammar> grammar = SchemaCompiler(document).compile();
  // The grammar's own limit on nodes names no place.
  if (!grammar.ok() && grammar.status().message().rfind(place, 0) != 0) {
    return grammar.status().with_context(std::string(place));
  }
  return grammar;
}

}  // namespace atom::grammar
