// Convolution (cross-correlation, as PyTorch means it) over D, H, W, with groups G:
//
//   y[n, f, o] = bias[f] + sum over c, t of x[n, g * C/G + c, i] * weight[f, c, t]
//   i          = o * stride - padding + t * dilation
//   g          = f / (F/G)
//
// or, with an epilogue, activation(y + residual) of that in the same pass (bias_act.h), where c is
// in [0, C/G), o, t and i run over three axes, and x is 0 outside its bounds.
// Sums in float32 at least (float64 for float64), in an order that depends on the shape alone.
#pragma once

#include "bias_act.h"
#include "tensor.h"

namespace pydl {

struct ConvWindow {
  int64_t stride[3], padding[3], dilation[3];  // D, H, W
  int64_t groups;
  bool tf32 = false;  // CUDA: products of float32 may be rounded to tf32, 10 bits of mantissa
};

struct ConvForward {
  Tensor x;       // (N, C, D, H, W)
  Tensor weight;  // (F, C/G, KD, KH, KW)
  Tensor bias;    // (1, F, 1, 1, 1); data == nullptr where there is none
  Tensor y;       // (N, F, OD, OH, OW), written
  ConvWindow window;
  Tensor residual{};  // like y; data == nullptr where there is none
  Epilogue epilogue{};
};

struct ConvGradInput {
  Tensor grad_y;  // (N, F, OD, OH, OW)
  Tensor weight;  // (F, C/G, KD, KH, KW)
  Tensor grad_x;  // (N, C, D, H, W), every element written
  ConvWindow window;
};

struct ConvGradWeight {
  Tensor grad_y;       // (N, F, OD, OH, OW)
  Tensor x;            // (N, C, D, H, W)
  Tensor grad_weight;  // (F, C/G, KD, KH, KW), every element written; zeros for an empty batch
  ConvWindow window;
  Tensor parts{};  // CUDA: conv_grad_weight_parts(args) values of float32, or float64 for float64
};

struct ConvGradBias {
  Tensor grad_y;     // (N, F, OD, OH, OW)
  Tensor grad_bias;  // (1, F, 1, 1, 1), written; contiguous
  // CUDA: (1, conv_grad_bias_runs(grad_y), 1, 1, F), of the dtype of conv_grad_weight's parts.
  Tensor parts{};
};

// CPU: depthwise convolution only (C/G == 1; F may be a multiple of C), every map dense in one
// layout, weight and grad_weight contiguous: dense convolution is PyTorch's own, which runs at the
// machine's limit.
namespace cpu {
void conv_forward(const ConvForward& args, int64_t threads);
void conv_grad_input(const ConvGradInput& args, int64_t threads);
void conv_grad_weight(const ConvGradWeight& args, int64_t threads);
void conv_grad_bias(const ConvGradBias& args, int64_t threads);
}  // namespace cpu

// CUDA: any strides. `stream` is a cudaStream_t; pointers belong to the current device.
namespace cuda {
void conv_forward(const ConvForward& args, int64_t stream);
void conv_grad_input(const ConvGradInput& args, int64_t stream);
void conv_grad_weight(const ConvGradWeight& args, int64_t stream);
void conv_grad_bias(const ConvGradBias& args, int64_t stream);
// How much room conv_grad_weight wants for partial sums with these sizes, layouts and pointers.
int64_t conv_grad_weight_parts(const ConvGradWeight& args);
// In how many runs of pixels conv_grad_bias adds up such a map; 0 where it wants no room for parts.
int64_t conv_grad_bias_runs(const Tensor& grad_y);
}  // namespace cuda

}  // namespace pydl
