// What a fused forward asks of Python's objects before it computes (pydl/fusion): whether a module
// still has the layers, and a weight the numbers, that it was written for.
#pragma once

#include <pybind11/pybind11.h>

namespace pydl {

void bind_watch(pybind11::module_& cpu);

}  // namespace pydl
