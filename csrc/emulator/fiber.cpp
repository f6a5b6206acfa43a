// Stacks and the switch between them.
#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>

#include "sanitizers.h"

#if defined(__ELF__) && (defined(__x86_64__) || defined(__aarch64__))
#define PYDL_SWITCH_IN_ASSEMBLY
#else
#include <ucontext.h>
#endif

namespace pydl::emulator {
namespace {

// The sanitizers' reports run on the stack of whoever caused them and want room.
size_t stack_size() { return under_asan() || under_tsan() ? 256 * 1024 : 64 * 1024; }

// Stacks are never given back: a Fiber lives as long as the process. Each has a page below it that
// faults, so that an overflow ends the process at once instead of writing into the neighbour; and
// since that makes the distance between two an odd number of pages, their tops do not compete for
// the same few places of the translation cache.
char* allocate_stack(size_t number) {
  constexpr size_t together = 64;
  static const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)),
                      distance = stack_size() + page;
  static char* slab;
  if (number % together == 0) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* memory = mmap(nullptr, together * distance, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    slab = static_cast<char*>(memory);
    for (size_t i = 0; i < together; ++i) mprotect(slab + i * distance, page, PROT_NONE);
  }
  return slab + (number % together) * distance + page;
}

}  // namespace

#if defined(PYDL_SWITCH_IN_ASSEMBLY)

// Saves the registers that a callee must keep, changes stacks, restores the other's: to the
// compiler an ordinary call.
extern "C" void pydl_switch_stacks(void** save_stack_pointer, void* stack_pointer);

#if defined(__x86_64__)
asm(R"(
  .text
  .hidden pydl_switch_stacks
  .globl pydl_switch_stacks
  .type pydl_switch_stacks, @function
pydl_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size pydl_switch_stacks, . - pydl_switch_stacks
)");
// Six registers, where to begin, and an empty return address, which also aligns the stack as after
// a call.
constexpr size_t frame_words = 8, entry_word = 6;
#else
asm(R"(
  .text
  .hidden pydl_switch_stacks
  .globl pydl_switch_stacks
  .type pydl_switch_stacks, %function
pydl_switch_stacks:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
  .size pydl_switch_stacks, . - pydl_switch_stacks
)");
constexpr size_t frame_words = 20, entry_word = 11;
#endif

void Fiber::restart() {
  allow(stack_, size_);  // where frames lay that nobody left
  // Tops at the same place of their pages would compete for the same few cache lines.
  const size_t shift = number_ % 64 * 64;
  auto* frame = reinterpret_cast<uintptr_t*>(stack_ + size_ - shift) - frame_words;
  std::memset(frame, 0, frame_words * sizeof *frame);
  frame[entry_word] = reinterpret_cast<uintptr_t>(entry_);
  context_ = frame;
}

#else

// As above, a stopped fiber's registers lie on its own stack.
static void pydl_switch_stacks(void** save_context, void* context) {
  ucontext_t here;
  *save_context = &here;
  swapcontext(&here, static_cast<ucontext_t*>(context));
}

void Fiber::restart() {
  allow(stack_, size_);  // where frames lay that nobody left
  auto* context = reinterpret_cast<ucontext_t*>(stack_ + size_) - 1;
  getcontext(context);
  context->uc_stack.ss_sp = stack_;
  context->uc_stack.ss_size = size_ - sizeof *context;
  makecontext(context, entry_, 0);
  context_ = context;
}

#endif

namespace {
Fiber* left;  // the fiber that the last switch stopped

// Switches order nothing: whether one thread's doing comes before another's is for the kernel's
// barriers to say.
void tsan_become(void* fiber) {
  __tsan_switch_to_fiber(fiber, /*__tsan_switch_to_fiber_no_sync*/ 1);
}
}  // namespace

Fiber::Fiber() {
  if (under_tsan()) tsan_fiber_ = __tsan_get_current_fiber();
}

Fiber::Fiber(void (*entry)()) : entry_(entry) {
  if (under_tsan()) tsan_fiber_ = __tsan_create_fiber(0);
  static size_t count;
  number_ = count++;
  stack_ = allocate_stack(number_);
  size_ = stack_size();
  restart();
}

void Fiber::switch_to(Fiber& from, Fiber& to) {
  left = &from;
  if (under_asan()) __sanitizer_start_switch_fiber(&from.fake_stack_, to.stack_, to.size_);
  if (under_tsan()) tsan_become(to.tsan_fiber_);
  pydl_switch_stacks(&from.context_, to.context_);
  arrived(from.fake_stack_);
}

void Fiber::arrived(void* fake_stack) {
  if (!under_asan()) return;
  const void* stack;
  size_t size;
  __sanitizer_finish_switch_fiber(fake_stack, &stack, &size);
  // Only here does AddressSanitizer say where a stack lies that the operating system made.
  if (!left->entry_) {
    left->stack_ = static_cast<char*>(const_cast<void*>(stack));
    left->size_ = size;
  }
}

Impersonation::Impersonation(const Fiber& fiber) {
  if (!under_tsan()) return;
  self_ = __tsan_get_current_fiber();
  tsan_become(fiber.tsan_fiber_);
}

Impersonation::~Impersonation() {
  if (self_) tsan_become(self_);
}

}  // namespace pydl::emulator
