// Each family binds itself to a module once for each library that has it (../families.h). The same
// Python signatures serve `cpu` and `cuda`; the last argument is the thread count for the one and
// the stream for the other.
#pragma once

#include <pybind11/pybind11.h>

#include "../families.h"

namespace pydl {

// bind_lrn_cpu, bind_lrn_cuda, ...; defined in the family's own file where the list says true.
#define PYDL_DECLARE(family, on_cpu, in_cuda)       \
  void bind_##family##_cpu(pybind11::module_& cpu); \
  void bind_##family##_cuda(pybind11::module_& cuda);
PYDL_FAMILIES(PYDL_DECLARE)
#undef PYDL_DECLARE

}  // namespace pydl
