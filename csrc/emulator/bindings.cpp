// The emulator's switches, for the tests.
#include "bindings.h"

#include "emulator.h"

namespace pydl {

void bind_emulator(pybind11::module_& module) {
  module.def("set_order", &emulator::set_order, pybind11::arg("seed"),
             pybind11::call_guard<pybind11::gil_scoped_release>(),
             "Run threads in their order, each until it waits (seed 0), or in a random order drawn "
             "from any other seed.");
  module.def("order", &emulator::order, "The seed in force.");
}

}  // namespace pydl
