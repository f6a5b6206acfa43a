// Power-average pooling over D, H, W, PyTorch's lp_pool: with p = norm_type and the windows of
// pool.h, without padding or dilation,
//
//   y[o] = (k / count[o] * sum of x[i]^p over the taps i of window o inside the input)^(1 / p)
//
// where k is the number of taps of a whole window and count[o] those inside: they differ only
// where ceil mode lets a window reach beyond the input, whose sum then counts for a whole window.
// No absolute value is taken: an odd p adds signed powers, and a negative sum under a root is NaN.
// Its gradient
//
//   grad_x[i] = x[i]^(p - 1) * sum over the windows o that hold i of
//               grad_y[o] * k / count[o] * y[o]^(1 - p)
//
// where windows with y[o] = 0 pass nothing back, as PyTorch's do, for p = 1 too.
#pragma once

#include "pool.h"

namespace pydl {

struct LpPoolForward {
  Tensor x;           // (N, C, D, H, W)
  Tensor y;           // (N, C, OD, OH, OW), written
  PoolWindow window;  // padding 0, dilation 1
  double norm_type;   // finite, not 0
};

struct LpPoolBackward {
  Tensor grad_y;  // (N, C, OD, OH, OW)
  Tensor x;       // (N, C, D, H, W)
  Tensor y;       // like grad_y, as LpPoolForward wrote it
  Tensor grad_x;  // like x, every element written
  PoolWindow window;
  double norm_type;
};

// CPU: every tensor dense, all in one layout (N, C, ... or channels last). It runs on at most
// `threads` threads.
namespace cpu {
void lp_pool_forward(const LpPoolForward& args, int64_t threads);
void lp_pool_backward(const LpPoolBackward& args, int64_t threads);
}  // namespace cpu

// CUDA: any strides. `stream` is a cudaStream_t; pointers belong to the current device.
namespace cuda {
void lp_pool_forward(const LpPoolForward& args, int64_t stream);
void lp_pool_backward(const LpPoolBackward& args, int64_t stream);
}  // namespace cuda

}  // namespace pydl
