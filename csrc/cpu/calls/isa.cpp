#include "isa.h"

#include "dispatch.h"

namespace pydl::cpu {

// The kernels of each instruction set, and the table that points to them. The processor must have
// what -march=x86-64-v3 and -v4 let the compiler use.
#define PYDL_DECLARE(function, Arguments, Kernel) Kernel<Arguments> function;
#define PYDL_POINT(function, Arguments, Kernel) .function = function,

namespace baseline {
PYDL_CPU_KERNELS(PYDL_DECLARE)
const Kernels table = {
    .name = "baseline", .runs_here = [] { return true; }, PYDL_CPU_KERNELS(PYDL_POINT)};
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
PYDL_CPU_KERNELS(PYDL_DECLARE)
const Kernels table = {.name = "avx2",
                       .runs_here = [] { return __builtin_cpu_supports("x86-64-v3") != 0; },
                       PYDL_CPU_KERNELS(PYDL_POINT)};
}  // namespace avx2
namespace avx512 {
PYDL_CPU_KERNELS(PYDL_DECLARE)
const Kernels table = {.name = "avx512",
                       .runs_here = [] { return __builtin_cpu_supports("x86-64-v4") != 0; },
                       PYDL_CPU_KERNELS(PYDL_POINT)};
}  // namespace avx512
#endif

#undef PYDL_DECLARE
#undef PYDL_POINT

namespace {

// The best first.
const Kernels* const all_kernels[] = {
#if defined(__x86_64__)
    &avx512::table,
    &avx2::table,
#endif
    &baseline::table,
};

const Kernels* best() {
  for (const Kernels* kernels : all_kernels) {
    if (kernels->runs_here()) return kernels;
  }
  return nullptr;
}

}  // namespace

std::atomic<const Kernels*> in_use = best();

std::string isa() { return kernels().name; }

void use_isa(const std::string& name) {
  for (const Kernels* candidate : all_kernels) {
    if (candidate->name != name) continue;
    check(candidate->runs_here(), "this processor does not have ", name);
    in_use = candidate;
    return;
  }
  check(false, "expected one of baseline, avx2 and avx512 that this build has, got ", name);
}

}  // namespace pydl::cpu
