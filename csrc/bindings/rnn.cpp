#include "../rnn.h"

#include "families.h"
#include "launch.h"

namespace pydl {
namespace {

namespace py = pybind11;

RnnCell cell_named(const std::string& name) {
  if (name == "rnn_tanh") return RnnCell::rnn_tanh;
  if (name == "rnn_relu") return RnnCell::rnn_relu;
  if (name == "lstm") return RnnCell::lstm;
  if (name == "gru") return RnnCell::gru;
  check(name == "gru_reset_before", "unknown recurrent cell ", name);
  return RnnCell::gru_reset_before;
}

template <auto forward, auto backward, auto cell_forward, auto cell_backward>
void bind_rnn(py::module_& module) {
  def_launch(
      module, "rnn_forward",
      [](Tensor gates, Tensor weight_hh, Tensor bias_hh, Tensor h0, Tensor c0, Tensor weight_hr,
         Tensor peephole, Tensor norm, Tensor norm_c, Tensor bias_c, Tensor drop, Tensor zone_h,
         Tensor zone_c, Tensor batch_sizes, const std::string& cell, bool reverse, double zoneout_h,
         double zoneout_c, double eps, Tensor y, Tensor h_n, Tensor c_n, Tensor c, Tensor activated,
         Tensor normalised, Tensor rstd, Tensor unprojected, Tensor work, int64_t where) {
        const RnnWeights weights{weight_hh, bias_hh, h0,   c0,     weight_hr, peephole,   norm,
                                 norm_c,    bias_c,  drop, zone_h, zone_c,    batch_sizes};
        const RnnKind kind{cell_named(cell), reverse, zoneout_h, zoneout_c, eps};
        py::gil_scoped_release release;
        forward({gates,
                 weights,
                 y,
                 h_n,
                 c_n,
                 {c, activated, normalised, rstd, unprojected},
                 work,
                 kind},
                where);
      });
  def_launch(
      module, "rnn_backward",
      [](Tensor grad_y, Tensor grad_h_n, Tensor grad_c_n, Tensor y, Tensor c, Tensor activated,
         Tensor normalised, Tensor rstd, Tensor weight_hh, Tensor h0, Tensor c0, Tensor weight_hr,
         Tensor peephole, Tensor norm, Tensor norm_c, Tensor bias_c, Tensor drop, Tensor zone_h,
         Tensor zone_c, Tensor batch_sizes, const std::string& cell, bool reverse, double zoneout_h,
         double zoneout_c, double eps, Tensor grad_gates, Tensor grad_products,
         Tensor grad_projected, Tensor grad_h0, Tensor grad_c0, Tensor grad_peephole,
         Tensor grad_norm, Tensor grad_norm_c, Tensor work, int64_t where) {
        const RnnWeights weights{weight_hh, {},     h0,   c0,     weight_hr, peephole,   norm,
                                 norm_c,    bias_c, drop, zone_h, zone_c,    batch_sizes};
        const RnnSaved saved{c, activated, normalised, rstd, {}};
        const RnnKind kind{cell_named(cell), reverse, zoneout_h, zoneout_c, eps};
        py::gil_scoped_release release;
        backward(
            {grad_y, grad_h_n, grad_c_n, weights, y, saved, grad_gates, grad_products,
             grad_projected, grad_h0, grad_c0, grad_peephole, grad_norm, grad_norm_c, work, kind},
            where);
      });
  def_launch(
      module, "rnn_cell_forward",
      [](Tensor gates, Tensor products, Tensor h, Tensor c, Tensor peephole,
         const std::string& cell, Tensor h_next, Tensor c_next, Tensor activated, int64_t where) {
        const RnnCellForward args{gates,     products,        h, c, peephole, h_next, c_next,
                                  activated, cell_named(cell)};
        py::gil_scoped_release release;
        cell_forward(args, where);
      });
  def_launch(module, "rnn_cell_backward",
             [](Tensor grad_h, Tensor grad_c, Tensor activated, Tensor h, Tensor c, Tensor c_next,
                Tensor peephole, const std::string& cell, Tensor grad_gates, Tensor grad_products,
                Tensor grad_h_before, Tensor grad_c_before, Tensor grad_peephole, int64_t where) {
               const RnnCellBackward args{grad_h,
                                          grad_c,
                                          activated,
                                          h,
                                          c,
                                          c_next,
                                          peephole,
                                          grad_gates,
                                          grad_products,
                                          grad_h_before,
                                          grad_c_before,
                                          grad_peephole,
                                          cell_named(cell)};
               py::gil_scoped_release release;
               cell_backward(args, where);
             });
}

}  // namespace

#if defined(PYDL_BIND_CPU)
void bind_rnn_cpu(py::module_& module) {
  bind_rnn<cpu::rnn_forward, cpu::rnn_backward, cpu::rnn_cell_forward, cpu::rnn_cell_backward>(
      module);
}
#endif
#if defined(PYDL_BIND_CUDA)
void bind_rnn_cuda(py::module_& module) {
  bind_rnn<cuda::rnn_forward, cuda::rnn_backward, cuda::rnn_cell_forward, cuda::rnn_cell_backward>(
      module);
  module.def(
      "rnn_path",
      [](Tensor weight_hh, const std::string& cell, int64_t sequences, bool layer_norm,
         bool backward) {
        return cuda::rnn_path(weight_hh, cell_named(cell), sequences, layer_norm, backward);
      },
      "How a layer with this weight goes on the current device: persistent or step by step, and "
      "why.");
  module.def("rnn_allow_persistent", &cuda::rnn_allow_persistent,
             "Whether one kernel may take all steps; for tests and comparisons.");
}
#endif

}  // namespace pydl
