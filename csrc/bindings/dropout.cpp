#include "../dropout.h"

#include "families.h"
#include "launch.h"

#if defined(PYDL_BIND_CPU)
namespace pydl {

void bind_dropout_cpu(pybind11::module_& module) {
  def_launch(module, "dropout", [](Tensor x, Tensor y, double p, Tensor seed, int64_t where) {
    check(seed.dtype == DType::int64 && seed.numel() == 1, "a seed is one number of int64");
    const Dropout args{x, y, p, *static_cast<const int64_t*>(seed.data)};
    pybind11::gil_scoped_release release;
    cpu::dropout(args, where);
  });
}

}  // namespace pydl
#endif
