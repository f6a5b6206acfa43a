// What the kernels of local response normalisation share.
#pragma once

#include <cmath>

#include "../lrn.h"
#include "device.h"

namespace pydl::cuda {

// scale^(-3/4), the usual power, of 1 / sqrt(scale), which is never subnormal: two special-function
// operations, where pow takes about 30 instructions.
template <class A>
__device__ __forceinline__ A three_quarters(A root) {
  return root * near_sqrt(root);
}

// Normalise, and say so, where the maps lie alike and the window is that of five channels, with
// beta = 3/4, that networks have (lrn_dense.cu).
bool launch_dense_lrn(const LrnForward& args, int64_t stream);
bool launch_dense_lrn(const LrnBackward& args, int64_t stream);

}  // namespace pydl::cuda
