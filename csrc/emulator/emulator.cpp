// Who runs when: threads, blocks, launches.
//
// A launch is synchronous, one at a time. Blocks run one after another; those of a cooperative
// launch all at once. A thread runs until it must wait, then another that is ready continues. There
// is no other preemption: a missing barrier shows because some order has the reader run before the
// writer. Greedily, those that woke last go first, so that a warp or a block runs as far ahead of
// the others as it can. With a seed the choice is random, and seeds differ in temper: odd ones are
// greedy most of the time, blocks in a random order; even ones favour some warps and blocks over
// others, more or less.
//
// ThreadSanitizer sees more than any order shows, because it asks what comes before what. Every
// CUDA thread is a thread to it; switches between them order nothing, only synchronise(), the
// atomics and the launch itself do. As it takes half a millisecond to make a thread, three crews of
// them serve all blocks of a launch, each block a crew drawn by lot: two blocks in three are
// unordered, so a race between blocks shows.
#include "emulator.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>
#include <numeric>
#include <utility>

#include "idle.h"
#include "state.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace pydl::emulator {

Launch* launch;
Thread* current;

namespace {

// The rest of the emulated device. Few multiprocessors: the threads that it holds at once are as
// many stacks.
constexpr int64_t multiprocessors = 8, threads_each = 2048, blocks_each = 32,
                  shared_bytes_each = 228 * 1024;
constexpr int64_t multiprocessors_of_h100 = 132;
constexpr int64_t tsan_fibers = 8000;  // ThreadSanitizer has room for 8128 threads
constexpr uint64_t tsan_crews = 3;

// The ready threads, a ring.
class Queue {
 public:
  void reset(size_t capacity) {
    ring_.resize(std::max(capacity, ring_.size()));
    first_ = count_ = 0;
  }
  size_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  Thread*& operator[](size_t i) { return ring_[wrap(first_ + i)]; }
  void push_back(Thread* thread) { (*this)[count_++] = thread; }
  void push_front(Thread* thread) {
    first_ = wrap(first_ + ring_.size() - 1);
    ++count_;
    ring_[first_] = thread;
  }
  Thread* pop_front() {
    Thread* const thread = ring_[first_];
    first_ = wrap(first_ + 1);
    --count_;
    return thread;
  }
  Thread* pop(size_t i) {  // whose place the last one takes
    Thread* const last = (*this)[--count_];
    return i == count_ ? last : std::exchange((*this)[i], last);
  }

 private:
  size_t wrap(size_t position) const {
    return position < ring_.size() ? position : position - ring_.size();
  }
  std::vector<Thread*> ring_;
  size_t first_ = 0, count_ = 0;
};

std::mutex one_launch;
std::atomic<bool> is_recording = false, is_idle = false;
std::vector<Record> records;
Queue ready;
Fiber* host;               // whoever launched
std::deque<Fiber> fibers;  // all there are
std::vector<Fiber*> idle;  // those that wait for a thread to run
char tsan_begin,
    tsan_end;  // stand for a block's begin, which is the host's doing, and for the end of a launch

uint64_t seed_in_force, random_state = 1;

size_t random_below(size_t count) {
  random_state ^= random_state << 13;  // Marsaglia's xorshift
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return static_cast<size_t>((random_state >> 32) * count >> 32);
}

// Threads

Thread* next_ready() {
  const bool often_greedy = seed_in_force % 2 == 1;
  if (!seed_in_force || (often_greedy && random_below(8) > 0)) return ready.pop_front();
  size_t best = random_below(ready.size());
  for (uint64_t rivals = seed_in_force / 2 % 4; rivals > 0; --rivals) {
    const size_t other = random_below(ready.size());
    if (ready[other]->priority > ready[best]->priority) best = other;
  }
  return ready.pop(best);
}

void run_threads();

Fiber* idle_fiber() {
  if (idle.empty()) return &fibers.emplace_back(run_threads);
  Fiber* const fiber = idle.back();
  idle.pop_back();
  return fiber;
}

void become(Thread* thread) {
  current = thread;
  threadIdx = launch->thread_indices[thread->number];
  blockIdx = thread->block->index;
}

void go_on(Fiber& from, Thread* next) {
  if (!next->fiber) next->fiber = idle_fiber();
  become(next);
  Fiber::switch_to(from, *next->fiber);
}

// The body of every fiber: runs thread after thread. Those that never wait cost no switch.
void run_threads() {
  Fiber::started();
  for (;;) {
    Fiber& fiber = *current->fiber;
    try {
      launch->thread(launch->closure);
      leave();
    } catch (...) {
      launch->error = std::current_exception();
    }
    current->fiber = nullptr;
    Thread* const next = launch->error || ready.empty() ? nullptr : next_ready();
    if (next && !next->fiber) {
      next->fiber = &fiber;
      become(next);
      continue;
    }
    if (!under_tsan()) idle.push_back(&fiber);
    if (next)
      go_on(fiber, next);
    else
      Fiber::switch_to(fiber, *host);
  }
}

}  // namespace

void wait() {
  Thread* const self = current;
  if (ready.empty()) return Fiber::switch_to(*self->fiber, *host);
  Thread* const next = next_ready();
  if (next != self) go_on(*self->fiber, next);
}

void wake(std::span<Thread* const> threads) {
  for (size_t i = threads.size(); i > 0; --i) {
    threads[i - 1]->waits_for = nullptr;
    if (threads[i - 1] != current) ready.push_front(threads[i - 1]);
  }
  launch->looks = 0;
}

void let_others_run() {
  if (!seed_in_force) return;
  ready.push_back(current);
  wait();
}

void step_back() {
  current->priority = 0;  // or those it waits for might hardly ever get their turn
  ready.push_back(current);
  wait();
}

void synchronise(std::span<Thread* const> threads) {
  if (!under_tsan()) return;
  const auto meeting =
      std::make_unique<char>();  // a new address: nobody comes after earlier meetings of others
  for (Thread* thread : threads) {
    const Impersonation as(*thread->own);
    __tsan_release(meeting.get());
  }
  for (Thread* thread : threads) {
    const Impersonation as(*thread->own);
    __tsan_acquire(meeting.get());
  }
}

// Blocks

namespace {

uint3 unflatten(uint64_t number, dim3 size) {
  return {static_cast<unsigned>(number % size.x), static_cast<unsigned>(number / size.x % size.y),
          static_cast<unsigned>(number / size.x / size.y)};
}

void begin(Block& block, uint64_t number) {
  block.index = unflatten(number, launch->configuration.grid);
  block.ended = 0;
  block.barrier.arrived.clear();
  block.barrier.votes = 0;
  std::fill(std::begin(block.collecting), std::end(block.collecting), 0);
  std::fill(std::begin(block.gone), std::end(block.gone), 0);
  if (const size_t rest = block.threads.size() % 32)
    block.gone[block.threads.size() / 32] = ~0u << rest;
  begin_memory(block);
  if (under_tsan()) __tsan_release(&tsan_begin);
  const size_t of_block = random_below(3000);
  size_t of_warp = 0;
  for (Thread& thread : block.threads) {
    if (thread.number % 32 == 0) of_warp = random_below(1000);
    thread.priority = static_cast<uint32_t>(1 + of_block + of_warp);
    thread.waits_for = nullptr;
    thread.copies.clear();
    thread.group = 0;
    ready.push_back(&thread);
    if (!under_tsan()) continue;
    thread.fiber = thread.own;
    const Impersonation as(*thread.own);
    __tsan_acquire(&tsan_begin);
  }
}

void end(Block& block) {
  for (Thread& thread : block.threads) {
    if (!thread.fiber) continue;  // else a fault ended the launch before the thread's end
    thread.fiber->restart();
    if (!under_tsan()) idle.push_back(thread.fiber);
    thread.fiber = nullptr;
  }
  if (!under_tsan()) return;
  // What uses the block's threads and memory next comes after all that it did, and so does the end
  // of the launch. The host does not, yet: the next block must not come after this one.
  std::vector<Thread*> threads;
  for (Thread& thread : block.threads) threads.push_back(&thread);
  synchronise(threads);
  const Impersonation as(*threads[0]->own);
  __tsan_release(&tsan_end);
}

// Runs blocks to their end, all at once.
void run_blocks(std::span<const std::unique_ptr<Block>> blocks, std::span<const uint64_t> numbers) {
  launch->ended = 0;
  ready.reset(launch->threads);
  for (size_t i = 0; i < blocks.size(); ++i) begin(*blocks[i], numbers[i]);
  Fiber here;
  host = &here;
  go_on(here, next_ready());
  try {
    if (!launch->error && launch->ended < launch->threads) deadlock();
  } catch (const Fault&) {
    launch->error = std::current_exception();
  }
  current = nullptr;
  for (const auto& block : blocks) end(*block);
}

// Launches

void check(const Configuration& configuration) {
  const auto& [grid, block, shared_bytes, cooperative, where] = configuration;
  const auto refuse = [&](const char* why) {
    fault("the kernel launch at ", text(where), " (grid ", grid.x, " x ", grid.y, " x ", grid.z,
          ", block ", block.x, " x ", block.y, " x ", block.z, ", ", shared_bytes,
          " bytes of dynamic shared memory) failed: ", why);
  };
  if (block.x > 1024 || block.y > 1024 || block.z > 64 ||
      uint64_t{block.x} * block.y * block.z > 1024) {
    refuse("a block has at most 1024 threads, 64 of them along z");
  }
  if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) {
    refuse("a grid has at most 2147483647 x 65535 x 65535 blocks");
  }
  if (shared_bytes > max_shared_bytes) refuse("a block has at most 232448 bytes of shared memory");
}

}  // namespace

void set_order(uint64_t seed) {
  const std::lock_guard lock(one_launch);
  seed_in_force = seed;
  random_state = seed * 0x9e3779b97f4a7c15u + 1;
}

uint64_t order() { return seed_in_force; }

int64_t resident_blocks(dim3 block, size_t shared_bytes) {
  const int64_t threads = (int64_t{block.x} * block.y * block.z + 31) / 32 * 32;
  const int64_t bytes =
      static_cast<int64_t>(shared_bytes) + 1024;  // of which CUDA keeps 1024 for itself
  const int64_t blocks = (recording() ? multiprocessors_of_h100 : multiprocessors) *
                         std::min({blocks_each, threads_each / threads, shared_bytes_each / bytes});
  return under_tsan() ? std::min(blocks, tsan_fibers / threads) : blocks;
}

void start_recording() {
  const std::lock_guard lock(one_launch);
  is_recording = true;
}

std::vector<Record> stop_recording() {
  const std::lock_guard lock(one_launch);
  is_recording = false;
  return std::exchange(records, {});
}

bool recording() { return is_recording; }

void record(Record record) {
  check(record.configuration);
  const std::lock_guard lock(one_launch);
  records.push_back(std::move(record));
}

void set_idle(bool idle) { is_idle = idle; }

void run(const Configuration& configuration, void (*thread)(const void*), const void* closure) {
  check(configuration);
  if (is_idle) return;
  const std::lock_guard lock(one_launch);
  static uint64_t serial = 0;
  Launch this_launch;
  launch = &this_launch;
  launch->configuration = configuration;
  launch->thread = thread;
  launch->closure = closure;
  launch->serial = ++serial;
  const auto& [grid, block, shared_bytes, cooperative, where] = configuration;
  blockDim = block;
  gridDim = grid;

  const unsigned threads = block.x * block.y * block.z;
  const uint64_t count = uint64_t{grid.x} * grid.y * grid.z, at_once = cooperative ? count : 1;
  const uint64_t crews = under_tsan() && !cooperative ? std::min(count, tsan_crews) : at_once;
  for (unsigned i = 0; i < threads; ++i) launch->thread_indices.push_back(unflatten(i, block));
  for (uint64_t i = 0; i < crews; ++i) launch->blocks.push_back(std::make_unique<Block>(threads));
  launch->threads = at_once * threads;
  // Room for all, so that no thread has to make it: ThreadSanitizer watches who allocates and who
  // frees.
  launch->arrays.reserve(64);
  launch->grid_barrier.arrived.reserve(cooperative ? launch->threads : 0);
  add_array(shared_bytes, 16);
  if (under_tsan()) {
    for (const auto& each : launch->blocks) {
      for (Thread& thread : each->threads) thread.own = idle_fiber();
    }
  }

  std::vector<uint64_t> numbers(cooperative || seed_in_force ? count : 0);
  std::iota(numbers.begin(), numbers.end(), 0);
  if (seed_in_force) {
    for (uint64_t i = count; i > 1; --i) std::swap(numbers[i - 1], numbers[random_below(i)]);
  }
  for (uint64_t first = 0; first < count && !launch->error; first += at_once) {
    const std::span blocks =
        std::span(launch->blocks).subspan(crews > at_once ? random_below(crews) : 0, at_once);
    run_blocks(blocks, numbers.empty() ? std::span<const uint64_t>(&first, 1)
                                       : std::span(numbers).subspan(first, at_once));
  }

  if (under_tsan()) {
    __tsan_acquire(&tsan_end);
    for (const auto& each : launch->blocks) {
      for (Thread& thread : each->threads) idle.push_back(thread.own);
    }
  }
  for (const auto& each : launch->blocks) end_memory(*each);
  launch = nullptr;
  if (this_launch.error) std::rethrow_exception(this_launch.error);
}

}  // namespace pydl::emulator
