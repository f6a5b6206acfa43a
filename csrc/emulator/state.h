// What the parts of the run-time share: the launch that runs, its blocks, its threads.
//
//   emulator.cpp   who runs when: threads, blocks, launches
//   barriers.cpp   waiting for each other: barriers, warp collectives, flags
//   memory.cpp     shared memory, asynchronous copies
//   warp.cpp       the work of the collectives: shuffles, votes, tensor cores
//   fault.cpp      the words of the exceptions
//   fiber.cpp      stacks and the switch between them
#pragma once

#include <exception>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "emulator.h"
#include "fault.h"
#include "fiber.h"
#include "sanitizers.h"

namespace pydl::emulator {

// The limits of the emulated device: those of compute capability 9.0.
inline constexpr size_t max_static_bytes = 48 * 1024;

struct Block;

struct Copy {
  char* to;
  const char* from;
  size_t bytes, source_bytes;
  uint64_t group;
  Where where;
};

struct Thread {
  Block* block;
  unsigned number;         // in its block
  uint32_t priority;       // in a random order, the same for a whole warp
  Fiber* fiber = nullptr;  // from its first instruction to its last
  Fiber* own = nullptr;    // under ThreadSanitizer: the same one for all threads that this object
                           // stands for in turn

  const char* waits_for =
      nullptr;  // the barrier or collective, by name; null while it runs or is ready to
  Where where;
  unsigned mask;   // of the collective, 0 for a barrier
  void* argument;  // what it brings to the collective
  int votes;       // of the last barrier

  std::vector<Copy> copies;  // issued, not yet waited for, oldest first
  uint64_t group = 0;        // the number of the group that its next copy belongs to
};

struct Barrier {
  std::vector<Thread*> arrived;
  int votes = 0;
};

// The memory that holds a block's shared arrays.
struct AlignedDelete {
  static constexpr std::align_val_t alignment{256};
  void operator()(char* memory) const { ::operator delete(memory, alignment); }
};
using Arena = std::unique_ptr<char, AlignedDelete>;

struct Block {
  uint3 index;
  std::vector<Thread> threads;
  unsigned ended = 0;  // threads that have
  Barrier barrier;
  uint32_t collecting[32];  // for each warp, its lanes that wait in a collective
  uint32_t gone[32];  // and those that will come to none: they have ended, or the block has no such
                      // thread
  Arena arena;
  size_t arrays = 0;  // so many of the launch's shared arrays are ready for use in it

  explicit Block(unsigned count) : threads(count) {
    for (unsigned i = 0; i < count; ++i) {
      threads[i].block = this;
      threads[i].number = i;
    }
    barrier.arrived.reserve(count);
  }
};

struct Launch {
  Configuration configuration;
  void (*thread)(const void*);
  const void* closure;
  uint64_t serial;
  std::vector<uint3> thread_indices;  // by a thread's number

  std::vector<std::unique_ptr<Block>>
      blocks;                     // room for those that run at once; the others come after them
  size_t threads = 0, ended = 0;  // that run at once, and how many of them have ended
  Barrier grid_barrier;
  uint64_t looks = 0;  // at flags, since a thread last woke or ended
  std::exception_ptr error;

  struct Array {
    size_t offset, bytes;
  };
  std::vector<Array> arrays;  // shared arrays in a block's arena, the dynamic one first
  size_t arena_used = 0, static_bytes = 0;
};

extern Launch* launch;   // the one that runs
extern Thread* current;  // and its thread that does

// Runs others until somebody has woken the current thread.
void wait();
// Puts these, the current thread perhaps among them, where the order may choose them.
void wake(std::span<Thread* const> threads);
// Called where the current thread could go on, which it greedily does, but a random order may
// prefer others.
void let_others_run();
// Lets all the others run first.
void step_back();
// Throws if somebody waits for the current thread, which has run to its end, or it has not waited
// for its own copies.
void leave();
// Tells ThreadSanitizer that what any of these did comes before what any of them will do.
void synchronise(std::span<Thread* const> threads);

// Adds a shared array to those of the launch and returns its number.
size_t add_array(size_t bytes, size_t alignment);
// Gives a block that begins its shared memory, of which nothing is ready for use; and takes it back
// at the launch's end.
void begin_memory(Block& block);
void end_memory(Block& block);

}  // namespace pydl::emulator
