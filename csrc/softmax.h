// Softmax along one axis, and its logarithm. x is read as (outer, C, inner): what lies outside of
// the axis in memory, the axis, what lies inside of it.
//
//   peak  = max over c of x[c]
//   total = sum over c of exp(x[c] - peak)
//
//   softmax      y[c] = exp(x[c] - peak) / total
//   log softmax  y[c] = x[c] - peak - log(total)
//
// and their gradients, from the result:
//
//   softmax      grad_x[c] = y[c] * (grad_y[c] - sum over c' of grad_y[c'] * y[c'])
//   log softmax  grad_x[c] = grad_y[c] - exp(y[c]) * sum over c' of grad_y[c']
//
// Sums are in float32 (float64 for float64). A column with a NaN or +inf, or of -inf alone, is NaN.
#pragma once

#include "tensor.h"

namespace pydl {

struct SoftmaxForward {
  Tensor x;  // (outer, C, inner)
  Tensor y;  // like x, written; must not overlap x
  bool log;
};

struct SoftmaxBackward {
  Tensor grad_y;  // (outer, C, inner)
  Tensor y;       // like grad_y: the forward's result
  Tensor grad_x;  // like grad_y, written; must not overlap either
  bool log;
};

// CPU: every tensor contiguous.
namespace cpu {
void softmax_forward(const SoftmaxForward& args, int64_t threads);
void softmax_backward(const SoftmaxBackward& args, int64_t threads);
}  // namespace cpu

}  // namespace pydl
