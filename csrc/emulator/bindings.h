#pragma once

#include <pybind11/pybind11.h>

namespace pydl {

void bind_emulator(pybind11::module_& emulator);

}  // namespace pydl
