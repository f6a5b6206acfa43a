// Locally connected layer: a convolution whose every position has weights of its own.
//
//   y[n, f, o] = bias[f, o] + sum over c, t of x[n, c, i] * weight[f, c * taps + t, o]
//   i          = o * stride - padding + t * dilation
//
// t counts the window's taps in scan order, taps = KD * KH * KW; x is 0 outside its bounds. Sums in
// float32 at least (float64 for float64), in an order that depends on the shape alone.
#pragma once

#include "tensor.h"

namespace pydl {

struct LocalWindow {
  int64_t kernel[3], stride[3], padding[3], dilation[3];  // D, H, W
};

struct LocalForward {
  Tensor x;       // (N, C, D, H, W)
  Tensor weight;  // (F, C * taps, OD, OH, OW)
  Tensor bias;    // (1, F, OD, OH, OW); data == nullptr where there is none
  Tensor y;       // (N, F, OD, OH, OW), written
  LocalWindow window;
};

struct LocalGradInput {
  Tensor grad_y;  // (N, F, OD, OH, OW)
  Tensor weight;  // (F, C * taps, OD, OH, OW)
  Tensor grad_x;  // (N, C, D, H, W), every element written
  LocalWindow window;
};

struct LocalGradWeight {
  Tensor grad_y;       // (N, F, OD, OH, OW)
  Tensor x;            // (N, C, D, H, W)
  Tensor grad_weight;  // (F, C * taps, OD, OH, OW), every element written; zeros for no images
  LocalWindow window;
};

// CPU: every tensor contiguous. CUDA: any strides.
namespace cpu {
void local_forward(const LocalForward& args, int64_t threads);
void local_grad_input(const LocalGradInput& args, int64_t threads);
void local_grad_weight(const LocalGradWeight& args, int64_t threads);
}  // namespace cpu

namespace cuda {
void local_forward(const LocalForward& args, int64_t stream);
void local_grad_input(const LocalGradInput& args, int64_t stream);
void local_grad_weight(const LocalGradWeight& args, int64_t stream);
}  // namespace cuda

}  // namespace pydl
