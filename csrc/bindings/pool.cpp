#include "../pool.h"

#include "families.h"
#include "launch.h"
#include "window.h"

namespace pydl {
namespace {

namespace py = pybind11;

PoolWindow pool_window_of(const Axes& kernel, const Axes& stride, const Axes& padding,
                          const Axes& dilation) {
  PoolWindow window;
  spread(kernel, 1, window.kernel);
  spread(stride, 1, window.stride);
  spread(padding, 0, window.padding);
  spread(dilation, 1, window.dilation);
  return window;
}

template <auto max_forward, auto max_backward, auto avg_forward, auto avg_backward>
void bind_pool(py::module_& module) {
  def_launch(module, "max_pool_forward",
             [](Tensor x, Tensor y, Tensor index, const Axes& kernel, const Axes& stride,
                const Axes& padding, const Axes& dilation, int64_t where) {
               const PoolWindow window = pool_window_of(kernel, stride, padding, dilation);
               py::gil_scoped_release release;
               max_forward({x, y, index, window}, where);
             });
  def_launch(module, "max_pool_backward",
             [](Tensor grad_y, Tensor index, Tensor grad_x, const Axes& kernel, const Axes& stride,
                const Axes& padding, const Axes& dilation, int64_t where) {
               const PoolWindow window = pool_window_of(kernel, stride, padding, dilation);
               py::gil_scoped_release release;
               max_backward({grad_y, index, grad_x, window}, where);
             });
  def_launch(module, "avg_pool_forward",
             [](Tensor x, Tensor y, const Axes& kernel, const Axes& stride, const Axes& padding,
                bool count_include_pad, int64_t divisor, int64_t where) {
               const PoolWindow window = pool_window_of(kernel, stride, padding, {1});
               py::gil_scoped_release release;
               avg_forward({x, y, window, count_include_pad, divisor}, where);
             });
  def_launch(module, "avg_pool_backward",
             [](Tensor grad_y, Tensor grad_x, const Axes& kernel, const Axes& stride,
                const Axes& padding, bool count_include_pad, int64_t divisor, int64_t where) {
               const PoolWindow window = pool_window_of(kernel, stride, padding, {1});
               py::gil_scoped_release release;
               avg_backward({grad_y, grad_x, window, count_include_pad, divisor}, where);
             });
}

}  // namespace

#if defined(PYDL_BIND_CPU)
void bind_pool_cpu(py::module_& module) {
  bind_pool<cpu::max_pool_forward, cpu::max_pool_backward, cpu::avg_pool_forward,
            cpu::avg_pool_backward>(module);
}
#endif
#if defined(PYDL_BIND_CUDA)
void bind_pool_cuda(py::module_& module) {
  bind_pool<cuda::max_pool_forward, cuda::max_pool_backward, cuda::avg_pool_forward,
            cuda::avg_pool_backward>(module);
}
#endif

}  // namespace pydl
