#include "../softmax.h"

#include "families.h"
#include "launch.h"

#if defined(PYDL_BIND_CPU)
namespace pydl {

namespace py = pybind11;

void bind_softmax_cpu(py::module_& module) {
  def_launch(module, "softmax_forward", [](Tensor x, Tensor y, bool log, int64_t where) {
    py::gil_scoped_release release;
    cpu::softmax_forward({x, y, log}, where);
  });
  def_launch(module, "softmax_backward",
             [](Tensor grad_y, Tensor y, Tensor grad_x, bool log, int64_t where) {
               py::gil_scoped_release release;
               cpu::softmax_backward({grad_y, y, grad_x, log}, where);
             });
}

}  // namespace pydl
#endif
