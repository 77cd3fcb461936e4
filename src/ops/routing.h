// Routing in plain memory, for backends that compute on the host.
#pragma once

#include <span>

#include "ops/backend.h"

namespace atom {

class RoutingTable final : public Routing {
 public:
  // Takes the memory that max_tokens need.
  RoutingTable(int64_t experts, int64_t active, int64_t max_tokens);

  int64_t experts() const override { return experts_; }
  int64_t active() const override { return active_; }
  int64_t max_tokens() const override { return max_tokens_; }
  int64_t tokens() const { return static_cast<int64_t>(table_.rows.size()) / active_; }
  const HostRouting& table() const { return table_; }

  // What Backend::route does; scores [T, E]. Fixed by the scores alone.
  void route(std::span<const float> scores, int64_t tokens);

 private:
  int64_t experts_, active_, max_tokens_;
  HostRouting table_;            // of the tokens routed last
  std::vector<int32_t> chosen_;  // [T, A] experts
  std::vector<int32_t> next_;    // [E] the next free row of each
};

}  // namespace atom
