#include "../conv.h"

#include "epilogue.h"
#include "families.h"
#include "tensor_caster.h"
#include "window.h"

namespace pydl {
namespace {

namespace py = pybind11;

ConvWindow window_of(const Axes& stride, const Axes& padding, const Axes& dilation,
                     int64_t groups) {
  ConvWindow window;
  spread(stride, 1, window.stride);
  spread(padding, 0, window.padding);
  spread(dilation, 1, window.dilation);
  window.groups = groups;
  return window;
}

}  // namespace

#if defined(PYDL_BIND_CUDA)
void bind_conv_cuda(py::module_& module) {
  module.def("conv_forward",
             [](Tensor x, Tensor weight, Tensor bias, Tensor residual, Tensor y, const Axes& stride,
                const Axes& padding, const Axes& dilation, int64_t groups,
                const std::string& activation, double slope, bool tf32, int64_t stream) {
               ConvWindow window = window_of(stride, padding, dilation, groups);
               window.tf32 = tf32;
               const Epilogue epilogue = epilogue_of(activation, slope);
               py::gil_scoped_release release;
               cuda::conv_forward({x, weight, bias, y, window, residual, epilogue}, stream);
             });
  module.def("conv_grad_input", [](Tensor grad_y, Tensor weight, Tensor grad_x, const Axes& stride,
                                   const Axes& padding, const Axes& dilation, int64_t groups,
                                   bool tf32, int64_t stream) {
    ConvWindow window = window_of(stride, padding, dilation, groups);
    window.tf32 = tf32;
    py::gil_scoped_release release;
    cuda::conv_grad_input({grad_y, weight, grad_x, window}, stream);
  });
  module.def("conv_grad_weight_parts",
             [](Tensor grad_y, Tensor x, Tensor grad_weight, const Axes& stride,
                const Axes& padding, const Axes& dilation, int64_t groups, bool tf32) {
               ConvWindow window = window_of(stride, padding, dilation, groups);
               window.tf32 = tf32;
               return cuda::conv_grad_weight_parts({grad_y, x, grad_weight, window});
             });
  module.def("conv_grad_weight", [](Tensor grad_y, Tensor x, Tensor grad_weight, const Axes& stride,
                                    const Axes& padding, const Axes& dilation, int64_t groups,
                                    bool tf32, Tensor parts, int64_t stream) {
    ConvWindow window = window_of(stride, padding, dilation, groups);
    window.tf32 = tf32;
    py::gil_scoped_release release;
    cuda::conv_grad_weight({grad_y, x, grad_weight, window, parts}, stream);
  });
  module.def("conv_grad_bias", [](Tensor grad_y, Tensor grad_bias, int64_t stream) {
    py::gil_scoped_release release;
    cuda::conv_grad_bias({grad_y, grad_bias}, stream);
  });
}
#endif

}  // namespace pydl
