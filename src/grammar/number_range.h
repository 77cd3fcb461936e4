// JSON numbers within bounds, as automata over their decimal text: comparisons are exact, digit by
// digit, without a detour through floating point.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "grammar/dfa.h"

namespace atom::grammar {

// The digits of a finite decimal number: (negative ? -1 : 1) * whole.fraction.
struct Decimal {
  bool negative = false;  // never of zero
  std::string whole;      // without leading zeros; empty: 0
  std::string fraction;   // without trailing zeros

  bool is_zero() const { return whole.empty() && fraction.empty(); }
};

// Reads a JSON number. Fails (nullopt) if it is none or written out has more than 40 digits on a
// side of the point.
std::optional<Decimal> parse_decimal(std::string_view json);
// < 0, 0, > 0 as a is less than, equal to or greater than b.
int compare(const Decimal& a, const Decimal& b);

struct Bound {
  Decimal value;
  bool exclusive = false;
};

struct NumberConditions {
  bool integer = false;
  std::optional<Bound> least;
  std::optional<Bound> most;
  int64_t divisor = 1;      // values are whole multiples of it
  int decimal_places = 16;  // digits after the point
};
inline constexpr int64_t kMaxDivisor = 1000;

// The texts: at most 16 digits before and after the point and two of an exponent, so that every
// value is finite, integers at most 18 digits and no -0. Conditions on the value exclude exponents
// and keep to 15 significant digits near the bounds, so that reading the text as a double cannot
// cross an exclusive bound.
Result<Dfa> number_automaton(const NumberConditions& conditions, WorkBudget& budget,
                             std::string_view place);

}  // namespace atom::grammar
