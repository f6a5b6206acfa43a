// Max and average pooling over D, H, W. Window o of an axis covers the taps
//
//   o * stride - padding + t * dilation,   0 <= t < kernel
//
// Padding is at most half of the window's span, 2 * padding <= (kernel - 1) * dilation + 1. The
// output's size is the caller's (floor or ceil mode); every window starts inside the input or its
// left padding. A dilated window may still step over a small input: its maximum is -inf, its index
// is no position, and no gradient comes from it.
//
// Max: padding is -inf, NaN wins. The index of a window is that of its maximum, the first on ties,
// the last NaN if there is one, the first tap inside the input if all are -inf. It is kept as
//
//   uint8   the tap's number inside the window, (td * KH + th) * KW + tw, at most 256 taps
//   int64   the flat position in the input's D * H * W plane
//
// Average: the divisor is `divisor` if that is not 0; else the number of taps inside the input or,
// with count_include_pad, inside the input extended by `padding` on both sides (what ceil mode
// reaches beyond that is never counted).
//
// The backward kernels gather: each input element adds up the windows that took from it, in a fixed
// order.
#pragma once

#include "tensor.h"

namespace pydl {

struct PoolWindow {
  int64_t kernel[3], stride[3], padding[3], dilation[3];  // D, H, W; dilation is 1 for averages
};

struct MaxPoolForward {
  Tensor x;      // (N, C, D, H, W)
  Tensor y;      // (N, C, OD, OH, OW), written
  Tensor index;  // like y, uint8 or int64, written; data == nullptr where nobody asked
  PoolWindow window;
};

struct MaxPoolBackward {
  Tensor grad_y;  // (N, C, OD, OH, OW)
  Tensor index;   // like grad_y, as MaxPoolForward wrote it
  Tensor grad_x;  // (N, C, D, H, W), every element written
  PoolWindow window;
};

struct AvgPoolForward {
  Tensor x;  // (N, C, D, H, W)
  Tensor y;  // (N, C, OD, OH, OW), written
  PoolWindow window;
  bool count_include_pad;
  int64_t divisor;
};

struct AvgPoolBackward {
  Tensor grad_y;  // (N, C, OD, OH, OW)
  Tensor grad_x;  // (N, C, D, H, W), every element written
  PoolWindow window;
  bool count_include_pad;
  int64_t divisor;
};

// CPU: every tensor dense, all in one layout (N, C, ... or channels last). It runs on at most
// `threads` threads.
namespace cpu {
void max_pool_forward(const MaxPoolForward& args, int64_t threads);
void max_pool_backward(const MaxPoolBackward& args, int64_t threads);
void avg_pool_forward(const AvgPoolForward& args, int64_t threads);
void avg_pool_backward(const AvgPoolBackward& args, int64_t threads);
}  // namespace cpu

// CUDA: any strides. `stream` is a cudaStream_t; pointers belong to the current device.
namespace cuda {
void max_pool_forward(const MaxPoolForward& args, int64_t stream);
void max_pool_backward(const MaxPoolBackward& args, int64_t stream);
void avg_pool_forward(const AvgPoolForward& args, int64_t stream);
void avg_pool_backward(const AvgPoolBackward& args, int64_t stream);
}  // namespace cuda

}  // namespace pydl
