// The extension module. `cpu` and `cuda` are submodules; a part that was not built is absent.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "families.h"
#if defined(PYDL_BIND_CPU)
#include <omp.h>

#include "../cpu/calls/isa.h"
#include "watch.h"
#endif
#if defined(PYDL_EMULATED)
#include "../emulator/bindings.h"
#endif

namespace py = pybind11;

PYBIND11_MODULE(PYDL_MODULE_NAME, module) {
#if defined(PYDL_BIND_CPU)
  py::module_ cpu = module.def_submodule("cpu");
  cpu.def("isa", &pydl::cpu::isa,
          "The instruction set whose kernels this machine runs: baseline, avx2 or avx512; empty "
          "where it has none of those built.");
  cpu.def("built_isas", &pydl::cpu::built_isas, "The instruction sets built, the best first.");
  cpu.def("use_isa", &pydl::cpu::use_isa,
          "Run the kernels of this instruction set; for tests and comparisons.");
  cpu.def(
      "max_threads", &omp_get_max_threads,
      "How many threads OpenMP's settings allow a call: OMP_NUM_THREADS, or what was set since.");
  pydl::bind_watch(cpu);
#define PYDL_BIND(family, on_cpu, in_cuda) \
  if constexpr (on_cpu) pydl::bind_##family##_cpu(cpu);
  PYDL_FAMILIES(PYDL_BIND)
#undef PYDL_BIND
#endif
#if defined(PYDL_BIND_CUDA)
  py::module_ cuda = module.def_submodule("cuda");
#define PYDL_BIND(family, on_cpu, in_cuda) \
  if constexpr (in_cuda) pydl::bind_##family##_cuda(cuda);
  PYDL_FAMILIES(PYDL_BIND)
#undef PYDL_BIND
#endif
#if defined(PYDL_EMULATED)
  py::module_ emulator = module.def_submodule("emulator");
  pydl::bind_emulator(emulator);
#endif
  module.attr("architectures") = PYDL_CUDA_ARCHITECTURES;
  module.attr("cuda_version") = PYDL_CUDA_VERSION;  // that compiled the CUDA kernels
}
