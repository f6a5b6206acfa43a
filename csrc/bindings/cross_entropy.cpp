#include "../cross_entropy.h"

#include "families.h"
#include "launch.h"

#if defined(PYDL_BIND_CPU)
namespace pydl {
namespace {

namespace py = pybind11;

// A reduction arrives as its name.
Criterion criterion_of(int64_t ignore_index, double label_smoothing, const std::string& reduction) {
  if (reduction == "none") return {ignore_index, label_smoothing, Reduction::none};
  if (reduction == "sum") return {ignore_index, label_smoothing, Reduction::sum};
  check(reduction == "mean", reduction, " is not a valid value for reduction");
  return {ignore_index, label_smoothing, Reduction::mean};
}

}  // namespace

void bind_cross_entropy_cpu(py::module_& module) {
  def_launch(module, "cross_entropy_forward",
             [](Tensor x, Tensor target, Tensor weight, Tensor loss, Tensor peak, Tensor total,
                Tensor divisor, int64_t ignore_index, double label_smoothing,
                const std::string& reduction, int64_t where) {
               const Criterion criterion = criterion_of(ignore_index, label_smoothing, reduction);
               py::gil_scoped_release release;
               cpu::cross_entropy_forward(
                   {x, target, weight, loss, peak, total, divisor, criterion}, where);
             });
  def_launch(module, "cross_entropy_backward",
             [](Tensor grad_loss, Tensor x, Tensor target, Tensor weight, Tensor peak, Tensor total,
                Tensor divisor, Tensor grad_x, int64_t ignore_index, double label_smoothing,
                const std::string& reduction, int64_t where) {
               const Criterion criterion = criterion_of(ignore_index, label_smoothing, reduction);
               py::gil_scoped_release release;
               cpu::cross_entropy_backward(
                   {grad_loss, x, target, weight, peak, total, divisor, grad_x, criterion}, where);
             });
}

}  // namespace pydl
#endif
