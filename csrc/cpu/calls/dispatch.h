// The kernels of an instruction set, all of ../../families.h's, and those in use.
#pragma once

#include <atomic>

#include "../../families.h"

namespace pydl::cpu {

// How a kernel is called; `channels_last` says in which layout its maps are.
template <class Arguments>
using MapKernel = void(const Arguments& args, bool channels_last, int64_t threads);
template <class Arguments>
using PlainKernel = void(const Arguments& args, int64_t threads);

struct Kernels {
  const char* name;
  bool (*runs_here)();
#define PYDL_POINTER(function, Arguments, Kernel) Kernel<Arguments>* function;
  PYDL_CPU_KERNELS(PYDL_POINTER)
#undef PYDL_POINTER
};

extern std::atomic<const Kernels*> in_use;

inline const Kernels& kernels() { return *in_use.load(std::memory_order_relaxed); }

}  // namespace pydl::cpu
