// Python's two ways of formatting: 'text %s' % values and 'text {}'.format(values).
#pragma once

#include "text/jinja_object.h"

namespace atom::jinja {

// format: a string; where it is safe, what is filled in gets escaped.
// args: a tuple, a dict (for %(name)s) or a single value.
Result<Value> percent_format(const Value& format, const Value& args, Meter& meter);
Result<Value> brace_format(const Value& format, const CallArgs& args, Meter& meter);

}  // namespace atom::jinja
