#include "isa.h"

#include "dispatch.h"

namespace pydl::cpu {

// The kernels of each instruction set that this build has, the best first, and tables that point to
// them. The processor must have what -march=x86-64-v3 and -v4 let the compiler use.
#define PYDL_DECLARE(function, Arguments, Kernel) Kernel<Arguments> function;
#define PYDL_POINT(function, Arguments, Kernel) .function = function,
#define PYDL_TABLE(isa, here)                                                        \
  namespace isa {                                                                    \
  PYDL_CPU_KERNELS(PYDL_DECLARE)                                                     \
  const Kernels table = {                                                            \
      .name = #isa, .runs_here = [] { return here; }, PYDL_CPU_KERNELS(PYDL_POINT)}; \
  }

#if defined(PYDL_HAS_avx512)
PYDL_TABLE(avx512, __builtin_cpu_supports("x86-64-v4") != 0)
#endif
#if defined(PYDL_HAS_avx2)
PYDL_TABLE(avx2, __builtin_cpu_supports("x86-64-v3") != 0)
#endif
#if defined(PYDL_HAS_baseline)
PYDL_TABLE(baseline, true)
#endif

#undef PYDL_DECLARE
#undef PYDL_POINT
#undef PYDL_TABLE

namespace {

const Kernels* const all_kernels[] = {
#if defined(PYDL_HAS_avx512)
    &avx512::table,
#endif
#if defined(PYDL_HAS_avx2)
    &avx2::table,
#endif
#if defined(PYDL_HAS_baseline)
    &baseline::table,
#endif
};

const Kernels* best() {
  for (const Kernels* kernels : all_kernels) {
    if (kernels->runs_here()) return kernels;
  }
  return nullptr;
}

}  // namespace

std::atomic<const Kernels*> in_use = best();

std::string isa() { return in_use.load() == nullptr ? "" : kernels().name; }

std::vector<std::string> built_isas() {
  std::vector<std::string> names;
  for (const Kernels* kernels : all_kernels) names.push_back(kernels->name);
  return names;
}

void use_isa(const std::string& name) {
  std::string built;
  for (const Kernels* candidate : all_kernels) {
    built += built.empty() ? candidate->name : std::string(", ") + candidate->name;
    if (candidate->name != name) continue;
    check(candidate->runs_here(), "this processor does not have ", name);
    in_use = candidate;
    return;
  }
  check(false, "this build has the CPU kernels for ", built, " only, got ", name);
}

}  // namespace pydl::cpu
