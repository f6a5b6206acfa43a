#include "../roi.h"

#include "families.h"
#include "launch.h"

namespace pydl {
namespace {

namespace py = pybind11;

template <auto align_forward, auto align_backward, auto pool_forward, auto pool_backward>
void bind_roi(py::module_& module) {
  def_launch(module, "roi_align_forward",
             [](Tensor x, Tensor boxes, Tensor y, double scale, int64_t samples, bool aligned,
                int64_t where) {
               py::gil_scoped_release release;
               align_forward({x, boxes, y, {scale, samples, aligned}}, where);
             });
  def_launch(module, "roi_align_backward",
             [](Tensor grad_y, Tensor boxes, Tensor grad_x, double scale, int64_t samples,
                bool aligned, int64_t where) {
               py::gil_scoped_release release;
               align_backward({grad_y, boxes, grad_x, {scale, samples, aligned}}, where);
             });
  def_launch(module, "roi_pool_forward",
             [](Tensor x, Tensor boxes, Tensor y, Tensor index, double scale, int64_t where) {
               py::gil_scoped_release release;
               pool_forward({x, boxes, y, index, scale}, where);
             });
  def_launch(
      module, "roi_pool_backward",
      [](Tensor grad_y, Tensor index, Tensor boxes, Tensor grad_x, double scale, int64_t where) {
        py::gil_scoped_release release;
        pool_backward({grad_y, index, boxes, grad_x, scale}, where);
      });
}

}  // namespace

#if defined(PYDL_BIND_CPU)
void bind_roi_cpu(py::module_& module) {
  bind_roi<cpu::roi_align_forward, cpu::roi_align_backward, cpu::roi_pool_forward,
           cpu::roi_pool_backward>(module);
}
#endif
#if defined(PYDL_BIND_CUDA)
void bind_roi_cuda(py::module_& module) {
  bind_roi<cuda::roi_align_forward, cuda::roi_align_backward, cuda::roi_pool_forward,
           cuda::roi_pool_backward>(module);
}
#endif

}  // namespace pydl
