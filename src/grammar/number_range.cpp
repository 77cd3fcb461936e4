#include "grammar/number_range.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

namespace atom::grammar {
namespace {

constexpr size_t kMaxDigits = 40;
constexpr int kSignificantDigits = 15;  // that a double always keeps apart

enum class Order : int8_t { kLess = -1, kEqual = 0, kGreater = 1 };

Order flipped(Order order) { return static_cast<Order>(-static_cast<int>(order)); }
Order order_of(int a, int b) {
  return a < b ? Order::kLess : a > b ? Order::kGreater : Order::kEqual;
}

// Where one stands in the text of a number that is compared with a bound.
struct Place {
  enum class Part : uint8_t { kStart, kSign, kWhole, kFraction };
  Part part = Part::kStart;
  bool negative = false;
  int digits = 0;               // read of this part, as far as it matters
  Order order = Order::kEqual;  // of the magnitude's digits so far to the bound's
  auto operator<=>(const Place&) const = default;
};

// Reads the text of a number without leading zeros and without exponent next to a bound.
class Comparison {
 public:
  explicit Comparison(const Decimal& bound) : bound_(bound) {}

  // False where the byte cannot come here.
  bool read(Place& at, char c) const {
    const int whole_digits = static_cast<int>(bound_.whole.size());
    if (c == '-') {
      if (at.part != Place::Part::kStart) return false;
      at.part = Place::Part::kSign;
      at.negative = true;
      return true;
    }
    if (c == '.') {
      if (at.part != Place::Part::kWhole) return false;
      at.order = whole_order(at);
      at.part = Place::Part::kFraction;
      at.digits = 0;
      return true;
    }
    if (at.part == Place::Part::kFraction) {
      if (at.order != Order::kEqual) return true;
      const auto i = static_cast<size_t>(at.digits);
      at.order = order_of(c, i < bound_.fraction.size() ? bound_.fraction[i] : '0');
      at.digits = std::min(at.digits + 1, static_cast<int>(bound_.fraction.size()));
      return true;
    }
    at.part = Place::Part::kWhole;
    if (c == '0' && at.digits == 0) return true;  // the whole part is 0
    const auto i = static_cast<size_t>(at.digits);
    if (at.order == Order::kEqual && i < bound_.whole.size()) {
      at.order = order_of(c, bound_.whole[i]);
    }
    at.digits = std::min(at.digits + 1, whole_digits + 1);
    return true;
  }

  // The order of the value to the bound if the text ends here.
  Order value_order(const Place& at) const {
    Order magnitude = at.part == Place::Part::kFraction ? at.order : whole_order(at);
    const bool fraction_left = at.part != Place::Part::kFraction
                                   ? !bound_.fraction.empty()
                                   : at.digits < static_cast<int>(bound_.fraction.size());
    if (magnitude == Order::kEqual && fraction_left) magnitude = Order::kLess;
    if (bound_.is_zero()) return at.negative ? flipped(magnitude) : magnitude;
    if (at.negative != bound_.negative) return at.negative ? Order::kLess : Order::kGreater;
    return at.negative ? flipped(magnitude) : magnitude;
  }

 private:
  Order whole_order(const Place& at) const {
    const Order length = order_of(at.digits, static_cast<int>(bound_.whole.size()));
    return length != Order::kEqual ? length : at.order;
  }
  const Decimal& bound_;
};

// Texts of numbers in one of two orders to the bound.
Dfa compared_with(const Bound& bound, Order wanted) {
  const Comparison comparison(bound.value);
  Dfa dfa;
  std::map<Place, int32_t> ids;
  std::vector<Place> places;
  const auto id_of = [&](const Place& place) {
    const auto [it, is_new] = ids.try_emplace(place, static_cast<int32_t>(places.size()));
    if (is_new) {
      places.push_back(place);
      const Order order = comparison.value_order(place);
      const bool ends = place.part >= Place::Part::kWhole;
      const bool holds = order == wanted || (order == Order::kEqual && !bound.exclusive);
      dfa.states.push_back({ends && holds, {}});
    }
    return it->second;
  };
  id_of({});
  for (size_t current = 0; current < places.size(); ++current) {
    std::vector<ByteEdge> edges;
    for (const char c : std::string_view("-.0123456789")) {  // ascending
      Place next = places[current];
      if (!comparison.read(next, c)) continue;
      edges.push_back({static_cast<uint8_t>(c), static_cast<uint8_t>(c), id_of(next)});
    }
    dfa.states[current].edges = std::move(edges);
  }
  return dfa;
}

// Texts of integers that the divisor divides: states are remainders, the first one the start.
Dfa multiples_of(int64_t divisor) {
  Dfa dfa;
  dfa.states.resize(static_cast<size_t>(divisor) + 1);
  for (int64_t state = 0; state <= divisor; ++state) {
    DfaState& s = dfa.states[static_cast<size_t>(state)];
    const int64_t remainder = state == 0 ? 0 : state - 1;
    s.accepting = state != 0 && remainder == 0;
    if (state == 0) s.edges.push_back({'-', '-', 0});
    for (int64_t digit = 0; digit < 10; ++digit) {
      const auto byte = static_cast<uint8_t>('0' + digit);
      s.edges.push_back({byte, byte, static_cast<int32_t>((remainder * 10 + digit) % divisor + 1)});
    }
  }
  return dfa;
}

}  // namespace

std::optional<Decimal> parse_decimal(std::string_view json) {
  Decimal result;
  size_t i = 0;
  if (i < json.size() && json[i] == '-') {
    result.negative = true;
    ++i;
  }
  std::string digits;
  int64_t point = -1;  // digits before it
  for (; i < json.size(); ++i) {
    if (json[i] >= '0' && json[i] <= '9') {
      digits.push_back(json[i]);
    } else if (json[i] == '.' && point < 0) {
      point = static_cast<int64_t>(digits.size());
    } else {
      break;
    }
  }
  if (digits.empty() || digits.size() > 400) return std::nullopt;
  if (point < 0) point = static_cast<int64_t>(digits.size());
  if (i < json.size()) {
    if (json[i] != 'e' && json[i] != 'E') return std::nullopt;
    ++i;
    const bool down = i < json.size() && json[i] == '-';
    if (i < json.size() && (json[i] == '-' || json[i] == '+')) ++i;
    int64_t exponent = 0;
    if (i == json.size()) return std::nullopt;
    for (; i < json.size(); ++i) {
      if (json[i] < '0' || json[i] > '9' || exponent > 9999) return std::nullopt;
      exponent = exponent * 10 + (json[i] - '0');
    }
    point += down ? -exponent : exponent;
  }
  const size_t first = digits.find_first_not_of('0');
  if (first == std::string::npos) return Decimal{};
  const size_t last = digits.find_last_not_of('0');
  point -= static_cast<int64_t>(first);
  digits = digits.substr(first, last - first + 1);
  const auto count = static_cast<int64_t>(digits.size());
  if (point > static_cast<int64_t>(kMaxDigits) ||
      count - point > static_cast<int64_t>(kMaxDigits)) {
    return std::nullopt;
  }
  if (point <= 0) {
    result.fraction = std::string(static_cast<size_t>(-point), '0') + digits;
  } else if (point >= count) {
    result.whole = digits + std::string(static_cast<size_t>(point - count), '0');
  } else {
    result.whole = digits.substr(0, static_cast<size_t>(point));
    result.fraction = digits.substr(static_cast<size_t>(point));
  }
  return result;
}

int compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  int magnitude = 0;
  if (a.whole.size() != b.whole.size()) {
    magnitude = a.whole.size() < b.whole.size() ? -1 : 1;
  } else if (a.whole != b.whole) {
    magnitude = a.whole < b.whole ? -1 : 1;
  } else if (a.fraction != b.fraction) {
    magnitude = a.fraction < b.fraction ? -1 : 1;
  }
  return a.negative ? -magnitude : magnitude;
}

Result<Dfa> number_automaton(const NumberConditions& conditions, WorkBudget& budget,
                             std::string_view place) {
  const bool whole = conditions.integer || conditions.divisor > 1;
  std::string pattern;
  if (whole) {
    pattern = "0|-?[1-9][0-9]{0,17}";
  } else if (!conditions.least && !conditions.most && conditions.decimal_places == 16) {
    pattern = "-?(?:0|[1-9][0-9]{0,15})(?:\\.[0-9]{1,16})?(?:[eE][+-]?[0-9]{1,2})?";
  } else {
    int places = conditions.decimal_places;
    for (const auto& bound : {conditions.least, conditions.most}) {
      if (!bound) continue;
      const auto digits = static_cast<int>(bound->value.whole.size());
      places = std::min(places, std::max(0, kSignificantDigits - digits));
    }
    pattern = "-?(?:0|[1-9][0-9]{0,14})";
    if (places > 0) pattern += fmt::format("(?:\\.[0-9]{{1,{}}})?", places);
  }
  Dfa dfa =
      ATOM_TRY(compile_pattern(pattern, /*search=*/false, CharSpelling::kUtf8, budget, place));
  if (conditions.least) {
    dfa = ATOM_TRY(combine(dfa, compared_with(*conditions.least, Order::kGreater),
                           SetOperation::kBoth, budget, place));
  }
  if (conditions.most) {
    dfa = ATOM_TRY(combine(dfa, compared_with(*conditions.most, Order::kLess), SetOperation::kBoth,
                           budget, place));
  }
  if (conditions.divisor > 1) {
    dfa = ATOM_TRY(
        combine(dfa, multiples_of(conditions.divisor), SetOperation::kBoth, budget, place));
  }
  return dfa;
}

}  // namespace atom::grammar
