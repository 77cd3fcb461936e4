// Conditions on the members of objects and the elements of arrays.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "grammar/schema_conditions.h"

namespace atom::grammar {
namespace {

// Adds the value of a keyword that is a schema; false where it is the schema `false`.
bool add_schema(Conjunction& to, SchemaRef schema) {
  if (schema.json->is_boolean()) return schema.json->get<bool>();
  to.push_back(std::move(schema));
  return true;
}

size_t prefix_size(const SchemaRef& schema) {
  const OrderedJson* prefix = SchemaDocument::find(schema, "prefixItems");
  return prefix == nullptr ? 0 : prefix->size();
}

}  // namespace

std::vector<std::string> Conditions::property_names() const {
  std::vector<std::string> names;
  std::map<std::string_view, bool> seen;
  const auto add = [&](const std::string& name) {
    if (seen.emplace(name, true).second) names.push_back(name);
  };
  for (const SchemaRef& schema : schemas) {
    const OrderedJson* properties = SchemaDocument::find(schema, "properties");
    if (properties == nullptr) continue;
    for (auto it = properties->begin(); it != properties->end(); ++it) add(it.key());
  }
  for (const SchemaRef& schema : schemas) {
    const OrderedJson* required = SchemaDocument::find(schema, "required");
    if (required == nullptr) continue;
    for (const OrderedJson& name : *required) add(name.get_ref<const std::string&>());
  }
  return names;
}

int64_t Conditions::member_work() const {
  // Each name is looked for in each list of properties, one member after another.
  size_t members = required.size();
  for (const SchemaRef& schema : schemas) {
    const OrderedJson* properties = SchemaDocument::find(schema, "properties");
    if (properties != nullptr) members += properties->size();
  }
  return static_cast<int64_t>(members * (members / 16 + 1));
}

std::optional<Conjunction> Conditions::property(const std::string& name,
                                                const SchemaDocument& document) const {
  Conjunction result;
  for (const SchemaRef& schema : schemas) {
    const OrderedJson* properties = SchemaDocument::find(schema, "properties");
    if (properties != nullptr && properties->contains(name)) {
      if (!add_schema(result, document.child(schema, "properties", name))) return std::nullopt;
    } else if (SchemaDocument::find(schema, "additionalProperties") != nullptr) {
      if (!add_schema(result, document.child(schema, "additionalProperties"))) return std::nullopt;
    }
  }
  return result;
}

std::optional<Conjunction> Conditions::additional(const SchemaDocument& document) const {
  Conjunction result;
  bool stated = false;
  bool has_properties = false;
  for (const SchemaRef& schema : schemas) {
    has_properties |= SchemaDocument::find(schema, "properties") != nullptr;
    if (SchemaDocument::find(schema, "additionalProperties") == nullptr) continue;
    stated = true;
    if (!add_schema(result, document.child(schema, "additionalProperties"))) return std::nullopt;
  }
  if (has_properties && !stated) return std::nullopt;
  return result;
}

std::optional<Conjunction> Conditions::element(size_t i, const SchemaDocument& document) const {
  Conjunction result;
  for (const SchemaRef& schema : schemas) {
    if (i < prefix_size(schema)) {
      if (!add_schema(result, document.child(schema, "prefixItems", std::to_string(i)))) {
        return std::nullopt;
      }
    } else if (SchemaDocument::find(schema, "items") != nullptr) {
      if (!add_schema(result, document.child(schema, "items"))) return std::nullopt;
    }
  }
  return result;
}

size_t Conditions::distinct_elements() const {
  size_t count = 0;
  for (const SchemaRef& schema : schemas) count = std::max(count, prefix_size(schema));
  return count;
}

}  // namespace atom::grammar
