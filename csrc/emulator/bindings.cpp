// The emulator's switches, for the tests.
#include "bindings.h"

#include <dlfcn.h>
#include <pybind11/stl.h>

#include "emulator.h"
#include "idle.h"

namespace pydl {
namespace {

namespace py = pybind11;

// The file that launches, where its kernel lies in this library, grid, block, bytes of dynamic
// shared memory, parameters.
py::tuple described(const emulator::Record& record) {
  const auto sizes = [](dim3 size) { return py::make_tuple(size.x, size.y, size.z); };
  const auto& [grid, block, shared_bytes, cooperative, where] = record.configuration;
  Dl_info library;
  dladdr(record.kernel, &library);
  const auto offset =
      static_cast<const char*>(record.kernel) - static_cast<const char*>(library.dli_fbase);
  return py::make_tuple(where.file_name(), offset, sizes(grid), sizes(block), shared_bytes,
                        py::bytes(record.parameters));
}

std::vector<py::tuple> recorded() {
  std::vector<py::tuple> out;
  for (const auto& record : emulator::stop_recording()) out.push_back(described(record));
  return out;
}

}  // namespace

void bind_emulator(pybind11::module_& module) {
  module.def("set_order", &emulator::set_order, pybind11::arg("seed"),
             pybind11::call_guard<pybind11::gil_scoped_release>(),
             "Run threads in their order, each until it waits (seed 0), or in a random order drawn "
             "from any other seed.");
  module.def("order", &emulator::order, "The seed in force.");
  module.def("set_idle", &emulator::set_idle, pybind11::arg("idle"),
             "Whether launches do nothing from now on: for measuring what comes before them.");
  module.def("record", &emulator::start_recording,
             "From now on record launches instead of running them.");
  module.def("recorded", &recorded,
             "Run launches again; returns those recorded: the file that launches, the kernel's "
             "place in this library, grid, block, bytes of dynamic shared memory, parameters.");
}

}  // namespace pydl
