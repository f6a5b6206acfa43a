#include "../pool_adaptive.h"

#include "families.h"
#include "launch.h"
#include "window.h"

namespace pydl {
namespace {

namespace py = pybind11;

std::vector<Bins> levels_of(const std::vector<Axes>& given) {
  std::vector<Bins> levels;
  for (const Axes& bins : given) {
    int64_t along[3];
    spread(bins, 1, along);
    levels.push_back({along[0], along[1], along[2]});
  }
  return levels;
}

template <auto forward, auto backward>
void bind_pool_adaptive(py::module_& module) {
  def_launch(module, "adaptive_pool_forward",
             [](Tensor x, Tensor y, Tensor index, const std::vector<Axes>& levels, bool pyramid,
                bool maximum, int64_t where) {
               const AdaptivePoolForward args{x, y, index, levels_of(levels), pyramid, maximum};
               py::gil_scoped_release release;
               forward(args, where);
             });
  def_launch(module, "adaptive_pool_backward",
             [](Tensor grad_y, Tensor index, Tensor grad_x, const std::vector<Axes>& levels,
                bool pyramid, bool maximum, int64_t where) {
               const AdaptivePoolBackward args{grad_y,  index,  grad_x, levels_of(levels),
                                               pyramid, maximum};
               py::gil_scoped_release release;
               backward(args, where);
             });
}

}  // namespace

#if defined(PYDL_BIND_CPU)
void bind_pool_adaptive_cpu(py::module_& module) {
  bind_pool_adaptive<cpu::adaptive_pool_forward, cpu::adaptive_pool_backward>(module);
}
#endif
#if defined(PYDL_BIND_CUDA)
void bind_pool_adaptive_cuda(py::module_& module) {
  bind_pool_adaptive<cuda::adaptive_pool_forward, cuda::adaptive_pool_backward>(module);
}
#endif

}  // namespace pydl
