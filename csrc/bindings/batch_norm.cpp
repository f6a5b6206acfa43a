#include "../batch_norm.h"

#include <pybind11/stl.h>

#include "activation.h"
#include "families.h"
#include "launch.h"

namespace pydl {
namespace {

namespace py = pybind11;

Epilogue epilogue_with_mask(const std::string& activation, double slope) {
  check(activation != "silu", "batch_norm serves the activations none, relu and leaky_relu");
  return epilogue_of(activation, slope);
}

template <auto stats, auto forward, auto train, auto grad_sums, auto grad_input>
void bind_batch_norm(py::module_& module) {
  def_launch(module, "batch_norm_stats",
             [](Tensor x, Tensor mean, Tensor var, Tensor parts, int64_t where) {
               py::gil_scoped_release release;
               stats({x, mean, var, parts}, where);
             });
  def_launch(module, "batch_norm_forward",
             [](Tensor x, Tensor mean, Tensor var, Tensor weight, Tensor bias, Tensor residual,
                Tensor y, Tensor mask, double eps, const std::string& activation, double slope,
                bool training, int64_t where) {
               const Epilogue epilogue = epilogue_with_mask(activation, slope);
               py::gil_scoped_release release;
               forward({x, mean, var, weight, bias, residual, y, mask, eps, epilogue, training},
                       where);
             });
  def_launch(module, "batch_norm_train",
             [](Tensor x, Tensor mean, Tensor var, Tensor weight, Tensor bias, Tensor residual,
                Tensor y, Tensor mask, double eps, const std::string& activation, double slope,
                Tensor running_mean, Tensor running_var, Tensor num_batches_tracked,
                std::optional<double> momentum, Tensor parts, int64_t where) {
               const Epilogue epilogue = epilogue_with_mask(activation, slope);
               py::gil_scoped_release release;
               train({{x, mean, var, weight, bias, residual, y, mask, eps, epilogue, true},
                      running_mean,
                      running_var,
                      num_batches_tracked,
                      momentum,
                      parts},
                     where);
             });
  def_launch(module, "batch_norm_grad_sums",
             [](Tensor grad_y, Tensor x, Tensor mean, Tensor var, Tensor mask, Tensor sum_g,
                Tensor sum_gx, double eps, const std::string& activation, double slope,
                bool rows_are_pixels, Tensor parts, int64_t where) {
               const Epilogue epilogue = epilogue_with_mask(activation, slope);
               py::gil_scoped_release release;
               grad_sums({grad_y, x, mean, var, mask, sum_g, sum_gx, eps, epilogue, rows_are_pixels,
                          parts},
                         where);
             });
  def_launch(
      module, "batch_norm_grad_input",
      [](Tensor grad_y, Tensor x, Tensor mean, Tensor var, Tensor weight, Tensor mask, Tensor sum_g,
         Tensor sum_gx, Tensor grad_x, Tensor grad_residual, double count, double eps,
         const std::string& activation, double slope, bool training, int64_t where) {
        const Epilogue epilogue = epilogue_with_mask(activation, slope);
        py::gil_scoped_release release;
        grad_input({grad_y, x, mean, var, weight, mask, sum_g, sum_gx, grad_x, grad_residual, count,
                    eps, epilogue, training},
                   where);
      });
}

}  // namespace

#if defined(PYDL_BIND_CPU)
void bind_batch_norm_cpu(py::module_& module) {
  bind_batch_norm<cpu::batch_norm_stats, cpu::batch_norm_forward, cpu::batch_norm_train,
                  cpu::batch_norm_grad_sums, cpu::batch_norm_grad_input>(module);
}
#endif
#if defined(PYDL_BIND_CUDA)
void bind_batch_norm_cuda(py::module_& module) {
  bind_batch_norm<cuda::batch_norm_stats, cuda::batch_norm_forward, cuda::batch_norm_train,
                  cuda::batch_norm_grad_sums, cuda::batch_norm_grad_input>(module);
  module.def("batch_norm_runs", cuda::batch_norm_runs);
}
#endif

}  // namespace pydl
