#include "../nms.h"

#include "families.h"
#include "launch.h"

namespace pydl {
namespace {

namespace py = pybind11;

template <auto nms>
void bind_nms(py::module_& module) {
  def_launch(
      module, "nms",
      [](Tensor boxes, Tensor classes, Tensor keep, Tensor words, double threshold, int64_t where) {
        py::gil_scoped_release release;
        nms({boxes, classes, keep, words, threshold}, where);
      });
}

}  // namespace

#if defined(PYDL_BIND_CPU)
void bind_nms_cpu(py::module_& module) { bind_nms<cpu::nms>(module); }
#endif
#if defined(PYDL_BIND_CUDA)
void bind_nms_cuda(py::module_& module) { bind_nms<cuda::nms>(module); }
#endif

}  // namespace pydl
