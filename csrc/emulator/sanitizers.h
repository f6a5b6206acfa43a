// The sanitizers' interfaces, as weak symbols: null unless the process runs under that sanitizer.
//
// So the run-time of the emulator is one object for every build, itself never instrumented.
// ThreadSanitizer requires that: it would take the run-time's own bookkeeping, which every fiber
// touches, for races of the kernel's.
#pragma once

#include <cstddef>

extern "C" {
#define WEAK __attribute__((weak))
WEAK void __sanitizer_start_switch_fiber(void** fake_stack, const void* stack, size_t size);
WEAK void __sanitizer_finish_switch_fiber(void* fake_stack, const void** old_stack,
                                          size_t* old_size);
WEAK void __asan_poison_memory_region(const volatile void* address, size_t size);
WEAK void __asan_unpoison_memory_region(const volatile void* address, size_t size);
WEAK void* __tsan_get_current_fiber();
WEAK void* __tsan_create_fiber(unsigned flags);
WEAK void __tsan_switch_to_fiber(void* fiber, unsigned flags);
WEAK void __tsan_acquire(void* address);
WEAK void __tsan_release(void* address);
WEAK void __tsan_read_range(void* address, unsigned long size);
WEAK void __tsan_write_range(void* address, unsigned long size);
#undef WEAK
}

namespace pydl::emulator {

inline bool under_asan() { return __asan_poison_memory_region != nullptr; }
inline bool under_tsan() { return __tsan_create_fiber != nullptr; }

// Makes memory an error to touch, or touchable again.
inline void forbid(const void* address, size_t size) {
  if (under_asan()) __asan_poison_memory_region(address, size);
}
inline void allow(const void* address, size_t size) {
  if (under_asan()) __asan_unpoison_memory_region(address, size);
}

}  // namespace pydl::emulator
