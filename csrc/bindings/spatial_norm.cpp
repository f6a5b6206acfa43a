#include "../spatial_norm.h"

#include "families.h"
#include "launch.h"

namespace pydl {
namespace {

namespace py = pybind11;

template <auto forward, auto backward>
void bind_spatial_norm(py::module_& module) {
  def_launch(
      module, "spatial_norm_forward",
      [](Tensor x, Tensor y, int64_t size, double rate, double beta, double k, int64_t where) {
        py::gil_scoped_release release;
        forward({x, y, size, rate, beta, k}, where);
      });
  def_launch(module, "spatial_norm_backward",
             [](Tensor grad_y, Tensor x, Tensor grad_x, Tensor term, int64_t size, double rate,
                double beta, double k, int64_t where) {
               py::gil_scoped_release release;
               backward({grad_y, x, grad_x, term, size, rate, beta, k}, where);
             });
}

}  // namespace

#if defined(PYDL_BIND_CPU)
void bind_spatial_norm_cpu(py::module_& module) {
  bind_spatial_norm<cpu::spatial_norm_forward, cpu::spatial_norm_backward>(module);
}
#endif
#if defined(PYDL_BIND_CUDA)
void bind_spatial_norm_cuda(py::module_& module) {
  bind_spatial_norm<cuda::spatial_norm_forward, cuda::spatial_norm_backward>(module);
}
#endif

}  // namespace pydl
