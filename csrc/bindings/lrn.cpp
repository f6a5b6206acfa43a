#include "../lrn.h"

#include "families.h"
#include "launch.h"

namespace pydl {
namespace {

namespace py = pybind11;

template <auto forward, auto backward>
void bind_lrn(py::module_& module) {
  def_launch(
      module, "lrn_forward",
      [](Tensor x, Tensor y, int64_t size, double alpha, double beta, double k, int64_t where) {
        py::gil_scoped_release release;
        forward({x, y, size, alpha, beta, k}, where);
      });
  def_launch(module, "lrn_backward",
             [](Tensor grad_y, Tensor x, Tensor grad_x, int64_t size, double alpha, double beta,
                double k, int64_t where) {
               py::gil_scoped_release release;
               backward({grad_y, x, grad_x, size, alpha, beta, k}, where);
             });
}

}  // namespace

#if defined(PYDL_BIND_CPU)
void bind_lrn_cpu(py::module_& module) { bind_lrn<cpu::lrn_forward, cpu::lrn_backward>(module); }
#endif
#if defined(PYDL_BIND_CUDA)
void bind_lrn_cuda(py::module_& module) { bind_lrn<cuda::lrn_forward, cuda::lrn_backward>(module); }
#endif

}  // namespace pydl
