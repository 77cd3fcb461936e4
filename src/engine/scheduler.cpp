#include "engine/scheduler.h"

#include <algorithm>
#include <span>

#include "base/check.h"

namespace atom {
namespace {

std::span<const int32_t, kPageTokens> page_tokens(const Sequence& sequence, int64_t page) {
  return std::span<const int32_t, kPageTokens>(sequence.tokens.data() + page * kPageTokens,
                                               static_cast<size_t>(kPageTokens));
}

}  // namespace

void Scheduler::add(std::shared_ptr<Sequence> sequence) {
  ATOM_CHECK(sequence->prompt_length > 0 && sequence->limit >= sequence->prompt_length &&
                 pages_for(sequence->limit) <= pool_.pages(),
             "a sequence that can never run");
  sequence->state = Sequence::State::kWaiting;
  sequence->link = sequence->root;
  const auto rank = sequence->rank;
  const bool is_new = waiting_.emplace(rank, std::move(sequence)).second;
  ATOM_CHECK(is_new, "two sequences of one rank");
}

void Scheduler::remove(Sequence& sequence) {
  if (sequence.state == Sequence::State::kEnded) return;
  release_pages(sequence);
  SequenceMap& from = sequence.state == Sequence::State::kRunning ? running_ : waiting_;
  sequence.state = Sequence::State::kEnded;
  from.erase(sequence.rank);  // the caller holds the sequence
}

std::vector<StepSlice> Scheduler::plan() {
  Forming step = {
      .slices = {}, .tokens_left = limits_.max_batch_tokens, .rows_left = limits_.max_logit_rows};
  const int64_t preemptions = preemptions_;
  // Sequences after the current one may be preempted, and so leave running_, on the way.
  for (auto it = running_.begin(); it != running_.end();) {
    const std::shared_ptr<Sequence> sequence = it->second;
    if (sequence->pending() == 1) {
      if (!reserve(*sequence, sequence->known())) break;  // it was the last, and waits now
      add_slice(sequence, step);
    }
    ++it;
  }
  for (const auto& [rank, sequence] : running_) {
    if (sequence->pending() > 1) add_slice(sequence, step);
  }
  // What was preempted for want of pages must not take them back at once.
  if (preemptions_ > preemptions) return std::move(step.slices);
  while (!waiting_.empty() && running() < limits_.max_sequences && step.tokens_left > 0 &&
         admit_first(step)) {
  }
  return std::move(step.slices);
}

// Adds as many of its pending tokens as the step has room for.
void Scheduler::add_slice(const std::shared_ptr<Sequence>& sequence, Forming& step) const {
  const int64_t first = sequence->next();
  const int64_t wanted = std::max(first, sequence->wanted_from());
  const int64_t end =
      std::min({first + sequence->pending(), first + step.tokens_left, wanted + step.rows_left});
  if (end <= first) return;
  StepSlice slice = {.sequence = sequence,
                     .first = first,
                     .count = end - first,
                     .residence = sequence->residence,
                     .rows_from = std::min(wanted, end),
                     .samples = sequence->generates() && end == sequence->known()};
  step.tokens_left -= slice.count;
  step.rows_left -= slice.rows();
  step.slices.push_back(std::move(slice));
}

// Moves the first waiting sequence to the running ones, if there are pages for all of its tokens
// and, so that it is not preempted the next moment, one more for each that runs.
bool Scheduler::admit_first(Forming& step) {
  const std::shared_ptr<Sequence> sequence = waiting_.begin()->second;
  // The last token always runs: its logits are wanted.
  const int64_t most = std::min(sequence->length() - 1, sequence->wanted_from());
  PageLink link = sequence->root;
  for (int64_t page = 0; (page + 1) * kPageTokens <= most; ++page) {
    const int32_t found = pool_.find(link, page_tokens(*sequence, page));
    if (found < 0) break;
    pool_.share(found);
    sequence->pages.push_back(found);
  }
  const auto shared = static_cast<int64_t>(sequence->pages.size());
  const int64_t missing = pages_for(sequence->length()) - shared;
  if (pool_.available() < missing + running() || !pool_.take(missing, sequence->pages)) {
    release_pages(*sequence);
    return false;
  }
  sequence->past = shared * kPageTokens;
  sequence->link = link;
  sequence->published = shared;
  sequence->state = Sequence::State::kRunning;
  running_.insert(waiting_.extract(waiting_.begin()));
  add_slice(sequence, step);
  return true;
}

// Sees to it that a running sequence has pages for so many tokens. False: no other one is left to
// preempt, and it waits itself.
bool Scheduler::reserve(Sequence& sequence, int64_t tokens) {
  const int64_t missing = pages_for(tokens) - static_cast<int64_t>(sequence.pages.size());
  while (missing > 0 && !pool_.take(missing, sequence.pages)) {
    Sequence& last = *running_.rbegin()->second;
    preempt(last);
    if (&last == &sequence) return false;
  }
  return true;
}

void Scheduler::preempt(Sequence& sequence) {
  release_pages(sequence);
  ++sequence.residence;
  sequence.state = Sequence::State::kWaiting;
  waiting_.insert(running_.extract(sequence.rank));
  ++preemptions_;
}

void Scheduler::release_pages(Sequence& sequence) {
  pool_.release(sequence.pages);
  sequence.pages.clear();
  sequence.link = sequence.root;
  sequence.published = 0;
  sequence.past = 0;
  sequence.in_flight = 0;
}

bool Scheduler::launch(const StepSlice& slice) {
  Sequence& sequence = *slice.sequence;
  if (sequence.state == Sequence::State::kEnded) return false;
  ATOM_CHECK(sequence.state == Sequence::State::kRunning && sequence.residence == slice.residence &&
                 sequence.next() == slice.first && slice.end() <= sequence.known(),
             "a slice that does not follow what ran before");
  sequence.in_flight += slice.count;
  sequence.awaits += slice.samples ? 1 : 0;
  return true;
}

bool Scheduler::complete(const StepSlice& slice) {
  Sequence& sequence = *slice.sequence;
  sequence.awaits -= slice.samples ? 1 : 0;
  if (sequence.state == Sequence::State::kEnded) return false;
  if (sequence.scored_from < sequence.prompt_length) {
    sequence.scored_from =
        std::max(sequence.scored_from, std::min(slice.end(), sequence.prompt_length));
  }
  if (sequence.residence != slice.residence) return true;  // its pages are gone
  sequence.in_flight -= slice.count;
  sequence.past = slice.end();
  for (; (sequence.published + 1) * kPageTokens <= sequence.past; ++sequence.published) {
    pool_.publish(sequence.link, page_tokens(sequence, sequence.published),
                  sequence.pages[static_cast<size_t>(sequence.published)]);
  }
  return true;
}

bool Scheduler::retract(const StepSlice& slice) {
  Sequence& sequence = *slice.sequence;
  sequence.awaits -= slice.samples ? 1 : 0;
  if (sequence.residence == slice.residence) sequence.in_flight -= slice.count;
  return sequence.state != Sequence::State::kEnded;
}

}  // namespace atom
