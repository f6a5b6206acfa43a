#include "../bias_act.h"

#include "activation.h"
#include "families.h"
#include "launch.h"

namespace pydl {
namespace {

namespace py = pybind11;

template <auto forward, auto backward>
void bind_bias_act(py::module_& module) {
  def_launch(module, "bias_act_forward",
             [](Tensor x, Tensor bias, Tensor residual, Tensor y, const std::string& activation,
                double slope, int64_t where) {
               const Epilogue epilogue = epilogue_of(activation, slope);
               py::gil_scoped_release release;
               forward({x, bias, residual, y, epilogue}, where);
             });
  def_launch(module, "bias_act_backward",
             [](Tensor grad_y, Tensor saved, Tensor grad_x, const std::string& activation,
                double slope, int64_t where) {
               const Epilogue epilogue = epilogue_of(activation, slope);
               py::gil_scoped_release release;
               backward({grad_y, saved, grad_x, epilogue}, where);
             });
}

}  // namespace

#if defined(PYDL_BIND_CPU)
void bind_bias_act_cpu(py::module_& module) {
  bind_bias_act<cpu::bias_act_forward, cpu::bias_act_backward>(module);
}
#endif
#if defined(PYDL_BIND_CUDA)
void bind_bias_act_cuda(py::module_& module) {
  bind_bias_act<cuda::bias_act_forward, cuda::bias_act_backward>(module);
}
#endif

}  // namespace pydl
