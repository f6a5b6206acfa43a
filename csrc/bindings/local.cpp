#include "../local.h"

#include "families.h"
#include "launch.h"
#include "window.h"

namespace pydl {
namespace {

namespace py = pybind11;

LocalWindow local_window_of(const Axes& kernel, const Axes& stride, const Axes& padding,
                            const Axes& dilation) {
  LocalWindow window;
  spread(kernel, 1, window.kernel);
  spread(stride, 1, window.stride);
  spread(padding, 0, window.padding);
  spread(dilation, 1, window.dilation);
  return window;
}

template <auto forward, auto grad_input, auto grad_weight>
void bind_local(py::module_& module) {
  def_launch(module, "local_forward",
             [](Tensor x, Tensor weight, Tensor bias, Tensor y, const Axes& kernel,
                const Axes& stride, const Axes& padding, const Axes& dilation, int64_t where) {
               const LocalWindow window = local_window_of(kernel, stride, padding, dilation);
               py::gil_scoped_release release;
               forward({x, weight, bias, y, window}, where);
             });
  def_launch(module, "local_grad_input",
             [](Tensor grad_y, Tensor weight, Tensor grad_x, const Axes& kernel, const Axes& stride,
                const Axes& padding, const Axes& dilation, int64_t where) {
               const LocalWindow window = local_window_of(kernel, stride, padding, dilation);
               py::gil_scoped_release release;
               grad_input({grad_y, weight, grad_x, window}, where);
             });
  def_launch(module, "local_grad_weight",
             [](Tensor grad_y, Tensor x, Tensor grad_weight_out, const Axes& kernel,
                const Axes& stride, const Axes& padding, const Axes& dilation, int64_t where) {
               const LocalWindow window = local_window_of(kernel, stride, padding, dilation);
               py::gil_scoped_release release;
               grad_weight({grad_y, x, grad_weight_out, window}, where);
             });
}

}  // namespace

#if defined(PYDL_BIND_CPU)
void bind_local_cpu(py::module_& module) {
  bind_local<cpu::local_forward, cpu::local_grad_input, cpu::local_grad_weight>(module);
}
#endif
#if defined(PYDL_BIND_CUDA)
void bind_local_cuda(py::module_& module) {
  bind_local<cuda::local_forward, cuda::local_grad_input, cuda::local_grad_weight>(module);
}
#endif

}  // namespace pydl
