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
// In training a batch moves running statistics towards its own, by momentum m:
//
//   running_mean = (1 - m) running_mean + m mean
//   running_var  = (1 - m) running_var + m var P / (P - 1)     the unbiased variance
//
// rounded once, to the dtype of what is kept.
//
// The mask is made of rows of whole bytes, element i of a row in bit i % 8 of byte i / 8, the rest
// 0. A row is what is contiguous in memory: a plane (n, c), or in channels last and for maps of one
// pixel the channels of a pixel.
#pragma once

#include <optional>

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

// All of a training step's forward: mean and var from x, running statistics moved, y and mask.
struct BatchNormTrain {
  BatchNormForward forward;
  Tensor running_mean;  // (1, C, 1, 1, 1), written; any floating dtype; data == nullptr: none
  Tensor running_var;   // like running_mean, written
  Tensor num_batches_tracked;  // one int64; data == nullptr: nobody counts
  // With a momentum num_batches_tracked is incremented. Without, it counts this batch already and
  // the momentum is 1 / num_batches_tracked, so that running statistics are the mean of all.
  std::optional<double> momentum;
  Tensor parts{};  // CUDA: as in BatchNormStats
};

inline void check_running(const BatchNormTrain& args) {
  const auto& [forward, mean, var, batches, momentum, parts] = args;
  for (const Tensor* vector : {&mean, &var}) {
    check(vector->data == nullptr ||
              (vector->numel() == forward.x.size[1] && vector->size[1] == vector->numel() &&
               (vector->stride[1] == 1 || vector->numel() == 1) &&
               (vector->dtype == DType::float32 || vector->dtype == DType::float64 ||
                vector->dtype == DType::float16 || vector->dtype == DType::bfloat16)),
          "batch_norm expects running statistics of ", forward.x.size[1],
          " floating-point values, contiguous");
  }
  check((mean.data == nullptr) == (var.data == nullptr) && mean.dtype == var.dtype,
        "batch_norm expects both running statistics, of one dtype, or neither");
  check(batches.data == nullptr || (batches.dtype == DType::int64 && batches.numel() == 1),
        "batch_norm expects num_batches_tracked to be one number of int64");
  check(mean.data == nullptr || momentum.has_value() || batches.data != nullptr,
        "batch_norm expects a momentum or num_batches_tracked");
}

// CPU: maps dense, all in one layout. CUDA: any strides except for y, grad_x and grad_residual,
// which are dense in one layout, the mask's; `training` is false: the statistics and the sums come
// from batch_norm_stats, within batch_norm_train, and batch_norm_grad_sums.
namespace cpu {
void batch_norm_stats(const BatchNormStats& args, int64_t threads);
void batch_norm_forward(const BatchNormForward& args, int64_t threads);
void batch_norm_grad_sums(const BatchNormGradSums& args, int64_t threads);
void batch_norm_grad_input(const BatchNormGradInput& args, int64_t threads);
void batch_norm_train(const BatchNormTrain& args, int64_t threads);
}  // namespace cpu

namespace cuda {
void batch_norm_stats(const BatchNormStats& args, int64_t stream);
void batch_norm_forward(const BatchNormForward& args, int64_t stream);
void batch_norm_train(const BatchNormTrain& args, int64_t stream);
void batch_norm_grad_sums(const BatchNormGradSums& args, int64_t stream);
void batch_norm_grad_input(const BatchNormGradInput& args, int64_t stream);
// Into how many runs the pixels of such a map are divided for its sums; depends on its sizes and
// layout.
int64_t batch_norm_runs(const Tensor& x);
}  // namespace cuda

}  // namespace pydl
