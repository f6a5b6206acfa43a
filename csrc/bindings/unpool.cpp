#include "../unpool.h"

#include "families.h"
#include "launch.h"

namespace pydl {
namespace {

namespace py = pybind11;

template <auto forward, auto backward>
void bind_unpool(py::module_& module) {
  def_launch(module, "max_unpool_forward",
             [](Tensor x, Tensor index, Tensor y, Tensor reach, int64_t where) {
               py::gil_scoped_release release;
               forward({x, index, y, reach}, where);
             });
  def_launch(module, "max_unpool_backward",
             [](Tensor grad_y, Tensor index, Tensor grad_x, int64_t where) {
               py::gil_scoped_release release;
               backward({grad_y, index, grad_x}, where);
             });
}

}  // namespace

#if defined(PYDL_BIND_CPU)
void bind_unpool_cpu(py::module_& module) {
  bind_unpool<cpu::max_unpool_forward, cpu::max_unpool_backward>(module);
}
#endif
#if defined(PYDL_BIND_CUDA)
void bind_unpool_cuda(py::module_& module) {
  bind_unpool<cuda::max_unpool_forward, cuda::max_unpool_backward>(module);
}
#endif

}  // namespace pydl
