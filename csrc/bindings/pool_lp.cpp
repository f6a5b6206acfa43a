#include "../pool_lp.h"

#include "families.h"
#include "launch.h"
#include "window.h"

namespace pydl {
namespace {

namespace py = pybind11;

PoolWindow still_window(const Axes& kernel, const Axes& stride) {
  PoolWindow window;
  spread(kernel, 1, window.kernel);
  spread(stride, 1, window.stride);
  spread({0}, 0, window.padding);
  spread({1}, 1, window.dilation);
  return window;
}

template <auto forward, auto backward>
void bind_pool_lp(py::module_& module) {
  def_launch(module, "lp_pool_forward",
             [](Tensor x, Tensor y, double norm_type, const Axes& kernel, const Axes& stride,
                int64_t where) {
               const PoolWindow window = still_window(kernel, stride);
               py::gil_scoped_release release;
               forward({x, y, window, norm_type}, where);
             });
  def_launch(module, "lp_pool_backward",
             [](Tensor grad_y, Tensor x, Tensor y, Tensor grad_x, double norm_type,
                const Axes& kernel, const Axes& stride, int64_t where) {
               const PoolWindow window = still_window(kernel, stride);
               py::gil_scoped_release release;
               backward({grad_y, x, y, grad_x, window, norm_type}, where);
             });
}

}  // namespace

#if defined(PYDL_BIND_CPU)
void bind_pool_lp_cpu(py::module_& module) {
  bind_pool_lp<cpu::lp_pool_forward, cpu::lp_pool_backward>(module);
}
#endif
#if defined(PYDL_BIND_CUDA)
void bind_pool_lp_cuda(py::module_& module) {
  bind_pool_lp<cuda::lp_pool_forward, cuda::lp_pool_backward>(module);
}
#endif

}  // namespace pydl
