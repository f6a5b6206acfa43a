// Bias, residual and activation of a map, the epilogue of a convolution:
//
//   z = x + bias[c] + residual
//   y = z                          none
//       max(z, 0), NaN for NaN     relu
//       z if z > 0 else slope * z  leaky_relu
//       z / (1 + exp(-z))          silu
//
// Backward: grad_x = grad_y * y'(z), the gradient of x and residual alike, from `saved`: z itself.
// relu (0 where saved <= 0) and leaky_relu (1 where saved > 0) look at nothing but its sign, so y
// serves them as well where slope >= 0.
#pragma once

#include "tensor.h"

namespace pydl {

enum class Activation : int { none, relu, leaky_relu, silu };

struct Epilogue {
  Activation activation = Activation::none;
  double slope = 0;  // of leaky_relu
};

struct BiasActForward {
  Tensor x;         // (N, C, D, H, W)
  Tensor bias;      // (1, C, 1, 1, 1); data == nullptr where there is none
  Tensor residual;  // like x; data == nullptr where there is none
  Tensor y;         // like x, written; may be x itself
  Epilogue epilogue;
};

struct BiasActBackward {
  Tensor grad_y;  // (N, C, D, H, W)
  Tensor saved;   // like grad_y
  Tensor grad_x;  // like grad_y, written
  Epilogue epilogue;
};

// CPU: x, residual and y (grad_y, saved and grad_x) dense, in one layout. CUDA: any strides.
namespace cpu {
void bias_act_forward(const BiasActForward& args, int64_t threads);
void bias_act_backward(const BiasActBackward& args, int64_t threads);
}  // namespace cpu

namespace cuda {
void bias_act_forward(const BiasActForward& args, int64_t stream);
void bias_act_backward(const BiasActBackward& args, int64_t stream);
}  // namespace cuda

}  // namespace pydl
