// A JSON Schema as it was written: parsed, within limits, its references followed.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace atom::grammar {

using OrderedJson = nlohmann::ordered_json;

// One schema inside a document: an object of keywords, or true or false.
struct SchemaRef {
  const OrderedJson* json = nullptr;
  std::string path;  // "#/properties/age", for messages
};

class SchemaDocument {
 public:
  // place names the document in messages.
  static Result<SchemaDocument> parse(std::string_view text, std::string place);
  SchemaDocument(SchemaDocument&&) noexcept;
  ~SchemaDocument();

  SchemaRef root() const;
  // The value of a keyword of `schema`, or null where it is absent.
  static const OrderedJson* find(const SchemaRef& schema, const char* keyword);
  // A schema inside another: child(schema, "items"), child(schema, "anyOf", "0").
  SchemaRef child(const SchemaRef& schema, std::string_view keyword,
                  std::string_view member = {}) const;
  // What the `$ref` of a schema names. Fails unless it is a place in this document.
  Result<SchemaRef> follow(const SchemaRef& schema) const;

  // Fails on a keyword that would be ignored though it constrains documents, and on what is no
  // schema at all.
  Status check_keywords(const SchemaRef& schema) const;

  // "response_format: #/properties/age/minimum: expected a number, found ..."
  template <class... Args>
  Status invalid(const SchemaRef& schema, fmt::format_string<Args...> format,
                 Args&&... args) const {
    return error(ErrorCode::kInvalidArgument, "{}: {}: {}", place_, schema.path,
                 fmt::format(format, std::forward<Args>(args)...));
  }
  Status unsupported(const SchemaRef& schema, std::string_view what) const;
  // For limits met while compiling the schema: "response_format: #/properties/name".
  std::string place_of(const SchemaRef& schema) const { return place_ + ": " + schema.path; }

  // A keyword's value as a type; the fallback where it is absent.
  Result<int64_t> get_count(const SchemaRef& schema, const char* keyword, int64_t fallback) const;
  Result<bool> get_bool(const SchemaRef& schema, const char* keyword, bool fallback) const;

 private:
  SchemaDocument(std::unique_ptr<OrderedJson> root, std::string place);
  std::unique_ptr<OrderedJson> root_;
  std::string place_;
};

}  // namespace atom::grammar
