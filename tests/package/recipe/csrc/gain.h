// A map times a number:
//
//   y = factor * x
//
// The gradient is the same function of grad_y.
#pragma once

#include "tensor.h"

namespace pydl {

struct GainForward {
  Tensor x;  // (N, C, D, H, W)
  Tensor y;  // like x, written
  double factor;
};

// CPU: x and y dense, in one layout. CUDA: any strides.
namespace cpu {
void gain_forward(const GainForward& args, int64_t threads);
}  // namespace cpu

namespace cuda {
void gain_forward(const GainForward& args, int64_t stream);
}  // namespace cuda

}  // namespace pydl
