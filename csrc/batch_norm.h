// Batch normalisation with what follows it (Ioffe and Szegedy 2015, algorithm 1; PyTorch's). For
// each channel c, over the P = N * D * H * W values it has:
//
//   mean[c] = sum of x / P
//   var[c]  = sum of (x - mean[c])^2 / P                 the biased one
//   xhat    = (x - mean[c]) / sqrt(var[c] + eps)
//   z       = xhat * weight[c] + bias[c] + residual
//   y       = z, or relu(z), or leaky_relu(z)
//
// The mask holds one bit per element, 1 where the activation passes the gradient on unchanged:
// !(z <= 0) for relu, z > 0 for leaky_relu. With g = grad_y there and slope * grad_y elsewhere
// (slope 0 for relu):
//
//   grad_residual  = g
//   grad_bias[c]   = sum of g
//   grad_weight[c] = sum of g * xhat
//   grad_x         = weight[c] / sqrt(var[c] + eps)
//                    * (g - grad_bias[c] / P - xhat * grad_weight[c] / P)
//
// where the last two terms are there only if mean and var came from x, not from running statistics.
// Where several processes normalise together, P and the two sums are those of all of them.
//
// Statistics, weights and sums are float32 (float64 where x is): vectors of C values, contiguous.
// They are joined from partial ones by Chan's formula, never from a sum of squares, in an order
// that depends on the shape alone, and on a GPU on whether memory begins at a multiple of 16 bytes.
//
// The mask is made of rows of whole bytes, element i of a row in bit i % 8 of byte i / 8, the rest
// 0. A row is what is contiguous in memory: a plane (n, c), or in channels last and for maps of one
// pixel the channels of a pixel.
#pragma once

#include "bias_act.h"
#include "tensor.h"

namespace pydl {

// mean and var of x; zeros where it has no elements.
struct BatchNormStats {
  Tensor x;        // (N, C, D, H, W)
  Tensor mean;     // (1, C, 1, 1, 1), written
  Tensor var;      // (1, C, 1, 1, 1), written
  Tensor parts{};  // CUDA: (2, batch_norm_runs(x), C), in the statistics' dtype
};

// y and mask from statistics: `training` first makes mean and var from x.
struct BatchNormForward {
  Tensor x;         // (N, C, D, H, W)
  Tensor mean;      // (1, C, 1, 1, 1), written where `training`
  Tensor var;       // (1, C, 1, 1, 1), written where `training`
  Tensor weight;    // (1, C, 1, 1, 1); data == nullptr: ones
  Tensor bias;      // (1, C, 1, 1, 1); data == nullptr: zeros
  Tensor residual;  // like x; data == nullptr: none
  Tensor y;         // like x, written
  Tensor mask;      // (N, C or P / N, bytes of a row), uint8, written; data == nullptr: not kept
  double eps;
  Epilogue epilogue;  // none, relu or leaky_relu
  bool training;
};

// sum_g[c] = sum of g, sum_gx[c] = sum of g * xhat.
struct BatchNormGradSums {
  Tensor grad_y;  // (N, C, D, H, W)
  Tensor x;       // like grad_y
  Tensor mean;    // (1, C, 1, 1, 1)
  Tensor var;     // (1, C, 1, 1, 1)
  Tensor mask;    // as above; data == nullptr where there is no activation
  Tensor sum_g;   // (1, C, 1, 1, 1), written
  Tensor sum_gx;  // (1, C, 1, 1, 1), written
  double eps;
  Epilogue epilogue;
  bool rows_are_pixels;  // the mask's, which a map of any strides does not say
  Tensor parts{};        // CUDA: (2, batch_norm_runs(x), C), in the sums' dtype
};

// grad_x and grad_residual from the sums: `training` first makes the sums.
struct BatchNormGradInput {
  Tensor grad_y;         // (N, C, D, H, W)
  Tensor x;              // like grad_y
  Tensor mean;           // (1, C, 1, 1, 1)
  Tensor var;            // (1, C, 1, 1, 1)
  Tensor weight;         // (1, C, 1, 1, 1); data == nullptr: ones
  Tensor mask;           // as above; data == nullptr where there is no activation
  Tensor sum_g;          // (1, C, 1, 1, 1), written where `training`; data == nullptr: running
  Tensor sum_gx;         // statistics, whose gradient has no such terms
  Tensor grad_x;         // like grad_y, written
  Tensor grad_residual;  // like grad_y, written; data == nullptr: not wanted
  double count;          // P; of all processes, where there are several
  double eps;
  Epilogue epilogue;
  bool training;
};

// running = (1 - momentum) running + momentum batch, where the batch's variance is the unbiased one,
// var * P / (P - 1). Rounded once, to what is kept.
struct BatchNormMove {
  Tensor running_mean;  // (1, C, 1, 1, 1), written; any floating dtype
  Tensor running_var;   // like running_mean, written
  Tensor mean;          // (1, C, 1, 1, 1)
  Tensor var;           // (1, C, 1, 1, 1)
  double count;         // P
  double momentum;
};

// CPU: maps dense, all in one layout. CUDA: any strides except for y, grad_x and grad_residual,
// which are dense in one layout, the mask's; `training` is false: the statistics and the sums come
// from batch_norm_stats and batch_norm_grad_sums.
namespace cpu {
void batch_norm_stats(const BatchNormStats& args, int64_t threads);
void batch_norm_forward(const BatchNormForward& args, int64_t threads);
void batch_norm_grad_sums(const BatchNormGradSums& args, int64_t threads);
void batch_norm_grad_input(const BatchNormGradInput& args, int64_t threads);
void batch_norm_move(const BatchNormMove& args);  // a vector is short: one thread
}  // namespace cpu

namespace cuda {
void batch_norm_stats(const BatchNormStats& args, int64_t stream);
void batch_norm_forward(const BatchNormForward& args, int64_t stream);
void batch_norm_grad_sums(const BatchNormGradSums& args, int64_t stream);
void batch_norm_grad_input(const BatchNormGradInput& args, int64_t stream);
// Into how many runs the pixels of such a map are divided for its sums; depends on its sizes and
// layout.
int64_t batch_norm_runs(const Tensor& x);
}  // namespace cuda

}  // namespace pydl
