// The extension module. `cpu` and `cuda` are submodules; a part that was not built is absent.
#include <pybind11/pybind11.h>

#include "families.h"
#if defined(PYDL_BIND_CPU)
#include "../cpu/isa.h"
#endif
#if defined(PYDL_EMULATED)
#include "../emulator/bindings.h"
#endif

namespace py = pybind11;

PYBIND11_MODULE(PYDL_MODULE_NAME, module) {
#if defined(PYDL_BIND_CPU)
  py::module_ cpu = module.def_submodule("cpu");
  cpu.def("isa", &pydl::cpu::isa,
          "The instruction set whose kernels this machine runs: baseline, avx2 or avx512.");
  cpu.def("use_isa", &pydl::cpu::use_isa,
          "Run the kernels of this instruction set; for tests and comparisons.");
  pydl::bind_conv_cpu(cpu);
  pydl::bind_bias_act_cpu(cpu);
  pydl::bind_batch_norm_cpu(cpu);
  pydl::bind_local_cpu(cpu);
  pydl::bind_pool_cpu(cpu);
  pydl::bind_pool_lp_cpu(cpu);
  pydl::bind_pool_adaptive_cpu(cpu);
  pydl::bind_unpool_cpu(cpu);
  pydl::bind_roi_cpu(cpu);
  pydl::bind_nms_cpu(cpu);
  pydl::bind_lrn_cpu(cpu);
  pydl::bind_spatial_norm_cpu(cpu);
  pydl::bind_softmax_cpu(cpu);
  pydl::bind_cross_entropy_cpu(cpu);
  pydl::bind_dropout_cpu(cpu);
  pydl::bind_rnn_cpu(cpu);
#endif
#if defined(PYDL_BIND_CUDA)
  py::module_ cuda = module.def_submodule("cuda");
  pydl::bind_conv_cuda(cuda);
  pydl::bind_bias_act_cuda(cuda);
  pydl::bind_batch_norm_cuda(cuda);
  pydl::bind_local_cuda(cuda);
  pydl::bind_pool_cuda(cuda);
  pydl::bind_pool_lp_cuda(cuda);
  pydl::bind_pool_adaptive_cuda(cuda);
  pydl::bind_unpool_cuda(cuda);
  pydl::bind_roi_cuda(cuda);
  pydl::bind_nms_cuda(cuda);
  pydl::bind_lrn_cuda(cuda);
  pydl::bind_spatial_norm_cuda(cuda);
  pydl::bind_rnn_cuda(cuda);
#endif
#if defined(PYDL_EMULATED)
  py::module_ emulator = module.def_submodule("emulator");
  pydl::bind_emulator(emulator);
#endif
  module.attr("architectures") = PYDL_CUDA_ARCHITECTURES;
}
