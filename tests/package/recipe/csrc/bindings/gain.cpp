#include "../gain.h"

#include "families.h"
#include "tensor_caster.h"

namespace pydl {
namespace {

namespace py = pybind11;

template <auto forward>
void bind_gain(py::module_& module) {
  module.def("gain_forward", [](Tensor x, Tensor y, double factor, int64_t where) {
    py::gil_scoped_release release;
    forward({x, y, factor}, where);
  });
}

}  // namespace

#if defined(PYDL_BIND_CPU)
void bind_gain_cpu(py::module_& module) { bind_gain<cpu::gain_forward>(module); }
#endif
#if defined(PYDL_BIND_CUDA)
void bind_gain_cuda(py::module_& module) { bind_gain<cuda::gain_forward>(module); }
#endif

}  // namespace pydl
