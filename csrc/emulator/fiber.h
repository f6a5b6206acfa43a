// Fibers: stacks that a program moves between by itself, some ten nanoseconds per move.
//
// The operating system's own contexts (ucontext) save the signal mask with a system call at every
// move, thirty times slower; they serve only on processors for which fiber.cpp has no assembly.
#pragma once

#include <cstddef>

namespace pydl::emulator {

class Fiber {
 public:
  // The stack that is running now: the one to come back to.
  Fiber();
  // A stack that will run `entry`, which must not return, when it is first switched to.
  explicit Fiber(void (*entry)());
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Forgets where the fiber stopped: the next switch starts it anew. Destructors of what lay on the
  // stack do not run.
  void restart();

  // Stops `from`, which must be running, and continues `to` where it stopped.
  static void switch_to(Fiber& from, Fiber& to);
  // The first thing a fiber must do when it starts.
  static void started() { arrived(nullptr); }

 private:
  friend class Impersonation;
  static void arrived(void* fake_stack);

  void (*entry_)() = nullptr;
  size_t number_ = 0;
  void* context_ = nullptr;  // where it stopped: its stack pointer, or a ucontext_t
  char* stack_ = nullptr;    // its lowest byte
  size_t size_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  void* tsan_fiber_ = nullptr;  // ThreadSanitizer's, to which every fiber is a thread
};

// While it lives, ThreadSanitizer takes what is done for that fiber's doing.
class Impersonation {
 public:
  explicit Impersonation(const Fiber& fiber);
  Impersonation(const Impersonation&) = delete;
  ~Impersonation();

 private:
  void* self_ = nullptr;
};

}  // namespace pydl::emulator
