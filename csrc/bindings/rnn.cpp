#include "../rnn.h"

#include "families.h"
#include "tensor_caster.h"

namespace pydl {
namespace {

namespace py = pybind11;

RnnWeights weights_of(const std::vector<Tensor>& w) {
  return {w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11], w[12]};
}

}  // namespace

#if defined(PYDL_BIND_CUDA)
void bind_rnn_cuda(py::module_& module) {
  module.def("rnn_forward",
             [](Tensor gates, std::vector<Tensor> w, std::vector<Tensor> out, Tensor work, int cell,
                bool reverse, double zoneout_h, double zoneout_c, double eps, int64_t where) {
               py::gil_scoped_release release;
               cuda::rnn_forward({gates,
                                  weights_of(w),
                                  out[0],
                                  out[1],
                                  out[2],
                                  {out[3], out[4], out[5], out[6], out[7]},
                                  work,
                                  {static_cast<RnnCell>(cell), reverse, zoneout_h, zoneout_c, eps}},
                                 where);
             });
  module.def("rnn_backward", [](std::vector<Tensor> grads, std::vector<Tensor> w,
                                std::vector<Tensor> saved, std::vector<Tensor> out, Tensor work,
                                int cell, bool reverse, double zoneout_h, double zoneout_c,
                                double eps, int64_t where) {
    py::gil_scoped_release release;
    cuda::rnn_backward({grads[0],
                        grads[1],
                        grads[2],
                        weights_of(w),
                        saved[0],
                        {saved[1], saved[2], saved[3], saved[4], saved[5]},
                        out[0],
                        out[1],
                        out[2],
                        out[3],
                        out[4],
                        out[5],
                        out[6],
                        out[7],
                        work,
                        {static_cast<RnnCell>(cell), reverse, zoneout_h, zoneout_c, eps}},
                       where);
  });
  module.def("rnn_cell_forward", [](Tensor gates, Tensor products, Tensor h, Tensor c,
                                    Tensor peephole, Tensor h_next, Tensor c_next, Tensor activated,
                                    int cell, int64_t where) {
    py::gil_scoped_release release;
    cuda::rnn_cell_forward(
        {gates, products, h, c, peephole, h_next, c_next, activated, static_cast<RnnCell>(cell)},
        where);
  });
  module.def("rnn_cell_backward",
             [](std::vector<Tensor> in, std::vector<Tensor> out, int cell, int64_t where) {
               py::gil_scoped_release release;
               cuda::rnn_cell_backward({in[0], in[1], in[2], in[3], in[4], in[5], in[6], out[0],
                                        out[1], out[2], out[3], out[4], static_cast<RnnCell>(cell)},
                                       where);
             });
  module.def("rnn_allow_persistent", &cuda::rnn_allow_persistent);
  module.def("rnn_path", [](Tensor weight_hh, int cell, int64_t sequences, bool layer_norm,
                            bool backward) {
    return cuda::rnn_path(weight_hh, static_cast<RnnCell>(cell), sequences, layer_norm, backward);
  });
}
#endif

}  // namespace pydl
