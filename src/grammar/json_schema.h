// JSON Schema as a grammar of the JSON documents that it describes.
//
// The grammar accepts a subset of the schema's documents, never another one: properties come in the
// order of the schema, objects that declare properties have no others unless additionalProperties
// says so, white space is what people and programs write, numbers have at most 16 digits before and
// after the point. What cannot be kept is an error. docs/constrained_output.md is the list.
#pragma once

#include <string_view>

#include "base/status.h"
#include "grammar/grammar.h"

namespace atom::grammar {

// place names the schema in messages, which go on with the path of what is wrong:
// "response_format: #/properties/age/minimum: ...". Fails on schemas beyond the limits on size (256
// KiB, 64 levels, 5000 members of an object) or work, on keywords that are not supported and on
// schemas that no finite document satisfies.
Result<Grammar> grammar_of_json_schema(std::string_view schema, std::string_view place);

}  // namespace atom::grammar
