// Local response normalisation across channels (Krizhevsky et al. 2012, section 3.3, with PyTorch's
// alpha / size):
//
//   scale[n, c, s] = k + alpha / size * sum over c' of x[n, c', s]^2
//   y              = x * scale^-beta
//
// where c' runs over the window c - size / 2 <= c' <= c + (size - 1) / 2, clipped to [0, C), and
// its gradient, with the window transposed (c - (size - 1) / 2 <= c' <= c + size / 2):
//
//   grad_x = grad_y * scale^-beta
//            - 2 * alpha * beta / size * x * sum over c' of grad_y * x * scale^(-beta - 1)
//
// Both add up in float32 (float64 for float64). Any NaN in a window makes every output of that
// window NaN.
#pragma once

#include "tensor.h"

namespace pydl {

struct LrnForward {
  Tensor x;  // (N, C, D, H, W)
  Tensor y;  // like x, written; must not overlap x
  int64_t size;
  double alpha, beta, k;
};

struct LrnBackward {
  Tensor grad_y;  // (N, C, D, H, W)
  Tensor x;       // like grad_y
  Tensor grad_x;  // like grad_y, written; must not overlap either
  int64_t size;
  double alpha, beta, k;
};

// CPU: every tensor dense, all in one layout (N, C, ... or channels last). It runs on at most
// `threads` threads.
namespace cpu {
void lrn_forward(const LrnForward& args, int64_t threads);
void lrn_backward(const LrnBackward& args, int64_t threads);
}  // namespace cpu

// CUDA: any strides, at most 2^29 channels. `stream` is a cudaStream_t; pointers belong to the
// current device.
namespace cuda {
void lrn_forward(const LrnForward& args, int64_t stream);
void lrn_backward(const LrnBackward& args, int64_t stream);
}  // namespace cuda

}  // namespace pydl
