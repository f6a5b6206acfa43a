// How threads wait for each other. Whoever must be waited for and cannot come any more is a fault
// at once; what only turns out when nobody can continue is a deadlock, which the scheduler reports.
#include <bit>

#include "state.h"

namespace pydl::emulator {
namespace {

// After this many looks at flags, and a thousand more for every thread, without anybody getting any
// further, nobody ever will.
constexpr uint64_t patience = 1'000'000;

void wait_at(const char* name, unsigned mask, Where where) {
  current->waits_for = name;
  current->mask = mask;
  current->where = where;
}

// `whose` are the `expected` threads that must all arrive, of which `ended` cannot.
void arrive(Barrier& barrier, const char* whose, size_t expected, size_t ended, const char* name,
            int vote, Where where) {
  const auto refuse = [&](const auto&... why) {
    fault(text(*current), " reached ", name, " (", text(where), "), but ", why...);
  };
  if (ended > 0) refuse(ended, " threads of the ", whose, " have ended");
  if (!barrier.arrived.empty() && !same(barrier.arrived[0]->where, where)) {
    refuse(waiting(*barrier.arrived[0]), ": the ", whose, " diverged");
  }
  wait_at(name, 0, where);
  barrier.arrived.push_back(current);
  barrier.votes += vote != 0;
  if (barrier.arrived.size() < expected) return wait();

  synchronise(barrier.arrived);
  for (Thread* thread : barrier.arrived) thread->votes = barrier.votes;
  wake(barrier.arrived);
  barrier.arrived.clear();
  barrier.votes = 0;
  let_others_run();
}

}  // namespace

void leave() {
  if (!current->copies.empty()) {
    fault(text(*current), " has ended, but not waited for its asynchronous copy (",
          text(current->copies[0].where), ")");
  }
  Block& block = *current->block;
  const unsigned warp = current->number / 32, lane = current->number % 32;
  const auto missed_by = [](const Thread& other) {
    fault(text(*current), " has ended, but ", waiting(other), " for it");
  };
  if (!block.barrier.arrived.empty()) missed_by(*block.barrier.arrived[0]);
  if (!launch->grid_barrier.arrived.empty()) missed_by(*launch->grid_barrier.arrived[0]);
  for (uint32_t lanes = block.collecting[warp]; lanes != 0; lanes &= lanes - 1) {
    const Thread& other = block.threads[warp * 32 + std::countr_zero(lanes)];
    if (other.mask >> lane & 1) missed_by(other);
  }
  block.gone[warp] |= 1u << lane;
  ++block.ended;
  ++launch->ended;
  launch->looks = 0;
}

int block_barrier(const char* name, int predicate, Where where) {
  Block& block = *current->block;
  arrive(block.barrier, "block", block.threads.size(), block.ended, name, predicate, where);
  return current->votes;
}

void grid_barrier(Where where) {
  if (!launch->configuration.cooperative) {
    fault(text(*current), " reached grid_barrier (", text(where),
          ") in a launch that is not cooperative");
  }
  arrive(launch->grid_barrier, "grid", launch->threads, launch->ended, "grid_barrier", 0, where);
}

void collective(const char* name, unsigned mask, void* argument, Work work, Where where) {
  Block& block = *current->block;
  const unsigned warp = current->number / 32, lane = current->number % 32;
  const auto refuse = [&](const auto&... why) {
    fault(text(*current), " calls ", name, " (", text(where), ") with mask ", hexadecimal(mask),
          ", ", why...);
  };
  if (!(mask >> lane & 1)) refuse("which leaves out its own lane ", lane);
  if (const unsigned gone = mask & block.gone[warp]) {
    refuse("but lane ", std::countr_zero(gone), " has ended or never was");
  }
  wait_at(name, mask, where);
  current->argument = argument;
  block.collecting[warp] |= 1u << lane;
  if ((block.collecting[warp] & mask) != mask) return wait();

  void* arguments[32] = {};
  Thread* together[32];
  size_t count = 0;
  for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
    const int other_lane = std::countr_zero(rest);
    Thread& other = block.threads[warp * 32 + other_lane];
    if (other.mask != mask || !same(other.where, where)) {
      refuse("but ", waiting(other), " with mask ", hexadecimal(other.mask));
    }
    arguments[other_lane] = other.argument;
    together[count++] = &other;
  }
  block.collecting[warp] &= ~mask;
  if (work)
    work(arguments, mask);
  else
    synchronise(
        {together, count});  // of all collectives only __syncwarp, which has no work, orders memory
  wake({together, count});
  let_others_run();
}

void yield(Where where) {
  if (++launch->looks > patience + 1000 * launch->threads) {
    fault("deadlock: ", text(*current), " waits for a flag (", text(where),
          ") and nobody else gets any further");
  }
  step_back();
}

void fence() {
  if (!under_tsan()) return;
  static char fences;
  __tsan_release(&fences);
  __tsan_acquire(&fences);
}

}  // namespace pydl::emulator
