// Response normalisation within each channel, over a window of positions (the "same map"
// normalisation of cuda-convnet, WITHIN_CHANNEL in Caffe):
//
//   scale[n, c, p] = k + rate * sum over p' of x[n, c, p']^2
//   y              = x * scale^-beta
//
// where p' runs over the box p - size / 2 <= p' <= p + (size - 1) / 2 along every spatial axis,
// clipped to the map, and rate = alpha / size^axes: positions outside the map count as zeros. Its
// gradient, with the box transposed (p - (size - 1) / 2 <= p' <= p + size / 2):
//
//   grad_x = grad_y * scale^-beta
//            - 2 * rate * beta * x * sum over p' of grad_y * x * scale^(-beta - 1)
//
// Both add up in float32 (float64 for float64), every box anew and in a fixed order. Any NaN in a
// box makes every output of that box NaN.
#pragma once

#include "tensor.h"

namespace pydl {

struct SpatialNormForward {
  Tensor x;  // (N, C, D, H, W)
  Tensor y;  // like x, written; must not overlap x
  int64_t size;
  double rate, beta, k;
};

struct SpatialNormBackward {
  Tensor grad_y;  // (N, C, D, H, W)
  Tensor x;       // like grad_y
  Tensor grad_x;  // like grad_y, written; must not overlap the others
  // Workspace like grad_y, of the type sums are in, written: grad_y * x * scale^(-beta - 1). CUDA's
  // alone; data == nullptr on a CPU.
  Tensor term;
  int64_t size;
  double rate, beta, k;
};

// CPU: every tensor dense, all in one layout (N, C, ... or channels last). It runs on at most
// `threads` threads.
namespace cpu {
void spatial_norm_forward(const SpatialNormForward& args, int64_t threads);
void spatial_norm_backward(const SpatialNormBackward& args, int64_t threads);
}  // namespace cpu

// CUDA: any strides. `stream` is a cudaStream_t; pointers belong to the current device.
namespace cuda {
void spatial_norm_forward(const SpatialNormForward& args, int64_t stream);
void spatial_norm_backward(const SpatialNormBackward& args, int64_t stream);
}  // namespace cuda

}  // namespace pydl
