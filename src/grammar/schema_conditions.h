// What one or several schemas together ask of a value, with references followed and applicators
// ($ref, allOf, anyOf, oneOf) dissolved into alternatives.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/status.h"
#include "grammar/grammar.h"
#include "grammar/number_range.h"
#include "grammar/schema_document.h"
#include "grammar/work_budget.h"

namespace atom::grammar {

// Schemas that must all hold; none: anything goes.
using Conjunction = std::vector<SchemaRef>;

enum JsonType : uint8_t {
  kNull = 1,
  kBoolean = 2,
  kObject = 4,
  kArray = 8,
  kString = 16,
  kFractional = 32,  // a number that is no integer
  kInteger = 64,
  kNumber = kFractional | kInteger,
  kAllTypes = 127,
};

struct StringPattern {
  std::string pattern;
  bool search = false;  // may stand anywhere in the string
  std::string place;    // for messages
};

// One alternative.
struct Conditions {
  unsigned types = kAllTypes;
  unsigned stated_types = kAllTypes;  // the same without guesses from other keywords
  std::optional<std::vector<const OrderedJson*>> values;  // of enum and const; all else checked
  NumberConditions number;
  int64_t min_length = 0;
  int64_t max_length = Node::kUnbounded;
  std::vector<StringPattern> patterns;
  int64_t min_items = 0;
  int64_t max_items = Node::kUnbounded;
  std::set<std::string> required;
  Conjunction schemas;  // whose keywords these are, for members and elements

  // Of objects. Names in the order of the schemas, required ones that none declares at the end.
  std::vector<std::string> property_names() const;
  // Units of a WorkBudget that it takes to look up all properties.
  int64_t member_work() const;
  // What is said about a property; nullopt: that it may not be there.
  std::optional<Conjunction> property(const std::string& name,
                                      const SchemaDocument& document) const;
  // What properties beyond property_names() must be; nullopt: there are none, which is taken for
  // granted where properties are declared and nothing else is said.
  std::optional<Conjunction> additional(const SchemaDocument& document) const;

  // Of arrays: what element i must be; nullopt: there is none.
  std::optional<Conjunction> element(size_t i, const SchemaDocument& document) const;
  // Elements from here on are all alike.
  size_t distinct_elements() const;
};

// Whether a value is one of these, as JSON Schema compares: 1.0 is 1.
bool is_among(const OrderedJson& value, const std::vector<const OrderedJson*>& listed);
// Units of a WorkBudget that it takes to look for each of `a` values among `b`.
int64_t comparison_work(size_t a, size_t b);

class ConditionReader {
 public:
  // Both must outlive the reader.
  ConditionReader(const SchemaDocument& document, WorkBudget& budget)
      : document_(document), budget_(budget) {}

  // A value satisfies the schemas if it satisfies one of these (and there may be none).
  Result<std::vector<Conditions>> alternatives(const Conjunction& schemas);

 private:
  struct Draft;
  Status check_acyclic(const SchemaRef& schema, int depth);
  Status expand(Draft draft, std::vector<Conjunction>& done);
  Result<std::vector<SchemaRef>> members(const SchemaRef& schema, const char* keyword) const;
  Status check_disjoint(const SchemaRef& schema);
  Status check_disjoint_members(const SchemaRef& schema);
  Result<bool> are_disjoint(const std::vector<Conditions>& a, const std::vector<Conditions>& b,
                            int depth);
  Result<bool> are_disjoint(const Conditions& a, const Conditions& b, int depth);

  Result<Conditions> read(Conjunction schemas);
  Status read_types(const SchemaRef& schema, Conditions& conditions, bool& typed) const;
  Status read_values(const SchemaRef& schema, Conditions& conditions) const;
  Status read_number(const SchemaRef& schema, NumberConditions& number) const;
  Result<std::optional<Bound>> read_bound(const SchemaRef& schema, const char* keyword,
                                          bool exclusive) const;
  Status read_divisor(const SchemaRef& schema, NumberConditions& number) const;
  Status read_string(const SchemaRef& schema, Conditions& conditions) const;
  Status read_array(const SchemaRef& schema, Conditions& conditions) const;
  Status read_object(const SchemaRef& schema, Conditions& conditions) const;
  Status keep_satisfying_values(Conditions& conditions);
  Result<bool> satisfies(const OrderedJson& value, const Conditions& conditions);
  Result<bool> matches_patterns(const std::string& text, const Conditions& conditions);

  const SchemaDocument& document_;
  WorkBudget& budget_;
  std::map<const OrderedJson*, bool> acyclic_;   // false: being looked at
  std::map<const OrderedJson*, bool> disjoint_;  // schemas whose oneOf was checked
  int disjoint_depth_ = 0;                       // checks within checks
};

}  // namespace atom::grammar
