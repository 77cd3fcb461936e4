// Dissolving $ref, allOf, anyOf and oneOf into alternatives.
#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "grammar/schema_conditions.h"

namespace atom::grammar {
namespace {

constexpr int kMaxInPlaceDepth = 100;
constexpr size_t kMaxAlternatives = 256;
constexpr size_t kMaxChoices = 100;   // anyOf that hold for one value together
constexpr int kMaxDisjointDepth = 8;  // properties within properties that tell alternatives apart

constexpr const char* kApplicators[] = {"allOf", "anyOf", "oneOf"};

}  // namespace

// An alternative whose schemas are still being collected.
struct ConditionReader::Draft {
  Conjunction todo;
  Conjunction schemas;                          // whose own keywords hold
  std::vector<std::vector<SchemaRef>> choices;  // of each, one member must hold too
};

Result<std::vector<Conditions>> ConditionReader::alternatives(const Conjunction& schemas) {
  for (const SchemaRef& schema : schemas) ATOM_TRY(check_acyclic(schema, 0));
  std::vector<Conjunction> expanded;
  ATOM_TRY(expand({schemas, {}, {}}, expanded));
  std::vector<Conditions> result;
  for (Conjunction& alternative : expanded) {
    result.push_back(ATOM_TRY(read(std::move(alternative))));
  }
  return result;
}

// A schema that consists of itself, by way of $ref and the like alone, has no meaning.
Status ConditionReader::check_acyclic(const SchemaRef& schema, int depth) {
  if (depth > kMaxInPlaceDepth) {
    return document_.unsupported(schema, "a chain of more than 100 references is");
  }
  ATOM_TRY(budget_.spend(1, document_.place_of(schema)));
  const auto [it, is_new] = acyclic_.try_emplace(schema.json, false);
  if (!is_new) {
    if (it->second) return {};
    return document_.invalid(schema, "the schema refers to itself without any value in between");
  }
  ATOM_TRY(document_.check_keywords(schema));
  if (SchemaDocument::find(schema, "$ref") != nullptr) {
    ATOM_TRY(check_acyclic(ATOM_TRY(document_.follow(schema)), depth + 1));
  }
  for (const char* applicator : kApplicators) {
    for (const SchemaRef& member : ATOM_TRY(members(schema, applicator))) {
      ATOM_TRY(check_acyclic(member, depth + 1));
    }
  }
  acyclic_[schema.json] = true;
  return {};
}

Status ConditionReader::expand(Draft draft, std::vector<Conjunction>& done) {
  // Depth first, so that properties keep the order in which a reader meets them.
  std::reverse(draft.todo.begin(), draft.todo.end());
  while (!draft.todo.empty()) {
    const SchemaRef schema = std::move(draft.todo.back());
    draft.todo.pop_back();
    ATOM_TRY(
        budget_.spend(1 + static_cast<int64_t>(draft.schemas.size()), document_.place_of(schema)));
    if (schema.json->is_boolean()) {
      if (!schema.json->get<bool>()) return {};
      continue;
    }
    const bool known = std::any_of(draft.schemas.begin(), draft.schemas.end(),
                                   [&](const SchemaRef& s) { return s.json == schema.json; });
    if (known) continue;
    draft.schemas.push_back(schema);
    std::vector<SchemaRef> all = ATOM_TRY(members(schema, "allOf"));
    std::move(all.rbegin(), all.rend(), std::back_inserter(draft.todo));
    if (SchemaDocument::find(schema, "$ref") != nullptr) {
      draft.todo.push_back(ATOM_TRY(document_.follow(schema)));
    }
    std::vector<SchemaRef> any = ATOM_TRY(members(schema, "anyOf"));
    if (!any.empty()) draft.choices.push_back(std::move(any));
    std::vector<SchemaRef> one = ATOM_TRY(members(schema, "oneOf"));
    if (!one.empty()) {
      ATOM_TRY(check_disjoint(schema));
      draft.choices.push_back(std::move(one));
    }
  }
  if (draft.choices.size() > kMaxChoices) {
    return document_.unsupported(draft.schemas[0], "more than 100 'anyOf' for one value are");
  }
  if (draft.choices.empty()) {
    if (done.size() == kMaxAlternatives) {
      const SchemaRef place = draft.schemas.empty() ? document_.root() : draft.schemas[0];
      return document_.unsupported(place, "more than 256 alternatives for one value are");
    }
    done.push_back(std::move(draft.schemas));
    return {};
  }
  const std::vector<SchemaRef> choice = std::move(draft.choices.front());
  draft.choices.erase(draft.choices.begin());
  for (const SchemaRef& member : choice) {
    Draft next = draft;
    next.todo.push_back(member);
    ATOM_TRY(expand(std::move(next), done));
  }
  return {};
}

// oneOf is anyOf where no value satisfies two members; that must be seen from the schema.
Status ConditionReader::check_disjoint(const SchemaRef& schema) {
  if (!disjoint_.try_emplace(schema.json, true).second) return {};
  if (disjoint_depth_ == kMaxDisjointDepth) {
    return document_.unsupported(document_.child(schema, "oneOf"),
                                 "telling members apart by a property that is a 'oneOf' itself, "
                                 "several times over, is");
  }
  ++disjoint_depth_;
  const Status status = check_disjoint_members(schema);
  --disjoint_depth_;
  return status;
}

Status ConditionReader::check_disjoint_members(const SchemaRef& schema) {
  std::vector<std::vector<Conditions>> branches;
  for (const SchemaRef& member : ATOM_TRY(members(schema, "oneOf"))) {
    branches.push_back(ATOM_TRY(alternatives({member})));
  }
  for (size_t i = 0; i < branches.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (ATOM_TRY(are_disjoint(branches[i], branches[j], 0))) continue;
      return document_.unsupported(
          document_.child(schema, "oneOf"),
          fmt::format("members {} and {} may both hold for a value, which is (say 'anyOf', or tell "
                      "them apart by type, or by a required property with different constants)",
                      j, i));
    }
  }
  return {};
}

Result<bool> ConditionReader::are_disjoint(const std::vector<Conditions>& a,
                                           const std::vector<Conditions>& b, int depth) {
  for (const Conditions& left : a) {
    for (const Conditions& right : b) {
      if (!ATOM_TRY(are_disjoint(left, right, depth))) return false;
    }
  }
  return true;
}

Result<bool> ConditionReader::are_disjoint(const Conditions& a, const Conditions& b, int depth) {
  ATOM_TRY(budget_.spend(4, document_.place_of(document_.root())));
  const unsigned common = a.stated_types & b.stated_types;
  if (common == 0) return true;
  for (const auto& [listed, other] : {std::pair(&a, &b), std::pair(&b, &a)}) {
    if (!listed->values) continue;
    const size_t others = other->values ? other->values->size() : 1;
    ATOM_TRY(budget_.spend(comparison_work(listed->values->size(), others),
                           document_.place_of(document_.root())));
    for (const OrderedJson* value : *listed->values) {
      const Result<bool> shared =
          other->values ? is_among(*value, *other->values) : satisfies(*value, *other);
      if (!shared.ok() || *shared) return false;
    }
    return true;
  }
  if (common != kObject || depth == kMaxDisjointDepth) return false;
  for (const auto& [left, right] : {std::pair(&a, &b), std::pair(&b, &a)}) {
    ATOM_TRY(budget_.spend(right->member_work(), document_.place_of(document_.root())));
    for (const std::string& name : left->required) {
      const std::optional<Conjunction> mine = left->property(name, document_);
      const std::optional<Conjunction> theirs = right->property(name, document_);
      if (!mine || !theirs) return true;
      if (ATOM_TRY(are_disjoint(ATOM_TRY(alternatives(*mine)), ATOM_TRY(alternatives(*theirs)),
                                depth + 1))) {
        return true;
      }
    }
  }
  return false;
}

}  // namespace atom::grammar
