// Which tokens of which sequences run in the next step: integers only, no model and no clock.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "engine/page_pool.h"
#include "engine/sequence.h"

namespace atom {

// A sequence's share of a step: tokens [first, first + count).
struct StepSlice {
  std::shared_ptr<Sequence> sequence;
  int64_t first = 0;
  int64_t count = 0;
  int64_t residence = 0;
  int64_t rows_from = 0;  // logits are wanted of tokens [rows_from, first + count)
  bool samples = false;   // the last row chooses the next token

  int64_t end() const { return first + count; }
  int64_t rows() const { return end() - rows_from; }
};

struct SchedulerLimits {
  int64_t max_sequences = 0;
  int64_t max_batch_tokens = 0;     // at least max_sequences
  int64_t max_logit_rows = 0;       // at least max_sequences
  int64_t cache_pages = INT64_MAX;  // see PagePool
};

// A step is planned, and perhaps launched, while the one before may still run: pages that a plan
// frees and gives away are written by steps that run after. Planned slices must be launched or
// dropped before the next plan, and of the steps launched before, all but the last completed or
// retracted.
class Scheduler {
 public:
  Scheduler(const SchedulerLimits& limits, int64_t pages)
      : limits_(limits), pool_(pages, limits.cache_pages) {}

  // Queues a sequence; it needs no more pages than the pool has, and its rank is unique.
  void add(std::shared_ptr<Sequence> sequence);
  // Takes an ended sequence out, whatever it was doing, and gives its pages back.
  void remove(Sequence& sequence);

  // Forms the next step: first a token of each sequence that generates, by rank, then the prompts
  // that have begun, then waiting sequences, as far as tokens, logit rows and pages go. Where a
  // sequence that generates finds no page, the running ones of the last ranks are preempted: they
  // lose their pages and wait.
  std::vector<StepSlice> plan();
  // The slice's step starts; its last token may be one that the step before is yet to add. False:
  // its sequence has ended since it was planned, and the slice must not run.
  bool launch(const StepSlice& slice);
  // The slice's step ran: its tokens are in the cache, and its full pages can be shared. Comes
  // before the sampled token is appended. False if the sequence has ended meanwhile.
  bool complete(const StepSlice& slice);
  // The slice's step failed, or one that it built on: its tokens must run again. The last step
  // launched goes first. False as above.
  bool retract(const StepSlice& slice);

  // Calls visit(sequence) for those running and then those waiting, each by rank, until it returns
  // false.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (const SequenceMap* sequences : {&running_, &waiting_}) {
      for (const auto& [rank, sequence] : *sequences) {
        if (!visit(*sequence)) return;
      }
    }
  }

  const PagePool& pool() const { return pool_; }
  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t preemptions() const { return preemptions_; }

 private:
  using SequenceMap = std::map<std::pair<int64_t, int64_t>, std::shared_ptr<Sequence>>;  // by rank
  struct Forming {
    std::vector<StepSlice> slices;
    int64_t tokens_left;
    int64_t rows_left;
  };

  void add_slice(const std::shared_ptr<Sequence>& sequence, Forming& step) const;
  bool admit_first(Forming& step);
  bool reserve(Sequence& sequence, int64_t tokens);
  void preempt(Sequence& sequence);
  void release_pages(Sequence& sequence);

  SchedulerLimits limits_;
  PagePool pool_;
  SequenceMap waiting_;
  SequenceMap running_;
  int64_t preemptions_ = 0;
};

}  // namespace atom
