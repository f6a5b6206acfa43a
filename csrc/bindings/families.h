// Each family binds itself to a module once a library. The same Python signatures serve `cpu` and
// `cuda`; the last argument is the thread count for the one and the stream for the other.
#pragma once

#include <pybind11/pybind11.h>

namespace pydl {

void bind_conv_cpu(pybind11::module_& cpu);
void bind_conv_cuda(pybind11::module_& cuda);
void bind_bias_act_cpu(pybind11::module_& cpu);
void bind_bias_act_cuda(pybind11::module_& cuda);
void bind_batch_norm_cpu(pybind11::module_& cpu);
void bind_batch_norm_cuda(pybind11::module_& cuda);
void bind_local_cpu(pybind11::module_& cpu);
void bind_local_cuda(pybind11::module_& cuda);
void bind_pool_cpu(pybind11::module_& cpu);
void bind_pool_cuda(pybind11::module_& cuda);
void bind_pool_lp_cpu(pybind11::module_& cpu);
void bind_pool_lp_cuda(pybind11::module_& cuda);
void bind_pool_adaptive_cpu(pybind11::module_& cpu);
void bind_pool_adaptive_cuda(pybind11::module_& cuda);
void bind_unpool_cpu(pybind11::module_& cpu);
void bind_unpool_cuda(pybind11::module_& cuda);
void bind_roi_cpu(pybind11::module_& cpu);
void bind_roi_cuda(pybind11::module_& cuda);
void bind_nms_cpu(pybind11::module_& cpu);
void bind_nms_cuda(pybind11::module_& cuda);
void bind_lrn_cpu(pybind11::module_& cpu);
void bind_lrn_cuda(pybind11::module_& cuda);
void bind_spatial_norm_cpu(pybind11::module_& cpu);
void bind_spatial_norm_cuda(pybind11::module_& cuda);
void bind_rnn_cuda(pybind11::module_& cuda);
void bind_softmax_cpu(pybind11::module_& cpu);
void bind_cross_entropy_cpu(pybind11::module_& cpu);
void bind_dropout_cpu(pybind11::module_& cpu);
void bind_rnn_cpu(pybind11::module_& cpu);

}  // namespace pydl
