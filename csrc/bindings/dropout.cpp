#include "../dropout.h"

#include "families.h"
#include "tensor_caster.h"

#if defined(PYDL_BIND_CPU)
namespace pydl {

void bind_dropout_cpu(pybind11::module_& module) {
  module.def("dropout", [](Tensor x, Tensor y, double p, int64_t seed, int64_t where) {
    pybind11::gil_scoped_release release;
    cpu::dropout({x, y, p, seed}, where);
  });
}

}  // namespace pydl
#endif
