#include "../conv.h"

#include "activation.h"
#include "families.h"
#include "launch.h"
#include "window.h"

namespace pydl {
namespace {

namespace py = pybind11;

ConvWindow conv_window_of(const Axes& stride, const Axes& padding, const Axes& dilation,
                          int64_t groups, bool tf32) {
  ConvWindow window;
  spread(stride, 1, window.stride);
  spread(padding, 0, window.padding);
  spread(dilation, 1, window.dilation);
  window.groups = groups;
  window.tf32 = tf32;
  return window;
}

template <auto forward, auto grad_input, auto grad_weight, auto grad_bias>
void bind_conv(py::module_& module) {
  def_launch(module, "conv_forward",
             [](Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor y, const Axes& stride,
                const Axes& padding, const Axes& dilation, int64_t groups,
                const std::string& activation, double slope, bool tf32, int64_t where) {
               const ConvWindow window = conv_window_of(stride, padding, dilation, groups, tf32);
               const Epilogue epilogue = epilogue_of(activation, slope);
               py::gil_scoped_release release;
               forward({x, weight, bias, y, window, residual, epilogue}, where);
             });
  def_launch(
      module, "conv_grad_input",
      [](Tensor grad_y, Tensor weight, Tensor grad_x, const Axes& stride, const Axes& padding,
         const Axes& dilation, int64_t groups, bool tf32, int64_t where) {
        const ConvWindow window = conv_window_of(stride, padding, dilation, groups, tf32);
        py::gil_scoped_release release;
        grad_input({grad_y, weight, grad_x, window}, where);
      });
  def_launch(
      module, "conv_grad_weight",
      [](Tensor grad_y, Tensor x, Tensor grad_weight_out, const Axes& stride, const Axes& padding,
         const Axes& dilation, int64_t groups, bool tf32, Tensor parts, int64_t where) {
        const ConvWindow window = conv_window_of(stride, padding, dilation, groups, tf32);
        py::gil_scoped_release release;
        grad_weight({grad_y, x, grad_weight_out, window, parts}, where);
      });
  def_launch(module, "conv_grad_bias",
             [](Tensor grad_y, Tensor grad_bias_out, Tensor parts, int64_t where) {
               py::gil_scoped_release release;
               grad_bias({grad_y, grad_bias_out, parts}, where);
             });
}

}  // namespace

#if defined(PYDL_BIND_CPU)
void bind_conv_cpu(py::module_& module) {
  bind_conv<cpu::conv_forward, cpu::conv_grad_input, cpu::conv_grad_weight, cpu::conv_grad_bias>(
      module);
}
#endif
#if defined(PYDL_BIND_CUDA)
void bind_conv_cuda(py::module_& module) {
  bind_conv<cuda::conv_forward, cuda::conv_grad_input, cuda::conv_grad_weight,
            cuda::conv_grad_bias>(module);
  module.def("conv_grad_weight_parts",
             [](Tensor grad_y, Tensor x, Tensor grad_weight, const Axes& stride,
                const Axes& padding, const Axes& dilation, int64_t groups, bool tf32) {
               const ConvWindow window = conv_window_of(stride, padding, dilation, groups, tf32);
               return cuda::conv_grad_weight_parts({grad_y, x, grad_weight, window});
             });
  module.def("conv_grad_bias_runs", cuda::conv_grad_bias_runs);
}
#endif

}  // namespace pydl
