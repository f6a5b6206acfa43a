// What the CUDA kernels of batch normalisation share: the maps as they see them, the checks.
#pragma once

#include <initializer_list>

#include "../batch_norm.h"
#include "activation.h"
#include "channel_sums.h"
#include "element.h"

namespace pydl::cuda {

// A map and the distance between its pixels, where there is one for all; else -1.
template <class T>
struct Map : View<T> {
  int64_t step;

  Map() = default;
  explicit Map(const Tensor& tensor) : View<T>(tensor), step(0) {
    int64_t span = 1;
    for (int axis = 4; axis >= 2; --axis) {
      if (tensor.size[axis] == 1) continue;
      if (span == 1) step = tensor.stride[axis];
      if (tensor.stride[axis] != step * span) {
        step = -1;
        return;
      }
      span *= tensor.size[axis];
    }
  }
  __device__ T& pixel(int64_t n, int64_t c, int64_t s) const {
    if (step >= 0) return this->data[n * this->stride[0] + c * this->stride[1] + s * step];
    const int64_t w = take(s, this->size[4]), h = take(s, this->size[3]);
    return this->at(n, c, s, h, w);
  }
};

template <class Function>
__device__ __forceinline__ void with_any(Activation activation, const Function& function) {
  with_activation<Activation::none, Activation::relu, Activation::leaky_relu>(activation, function);
}

template <class A>
__device__ A inverse_deviation(A var, A eps) {
  return reciprocal_sqrt(var + eps);
}

// g from grad_y and its bit of a byte of the mask.
template <class A>
__device__ A passed(A grad_y, uint8_t byte, int bit, const Epilogue& epilogue) {
  if (byte >> bit & 1) return grad_y;
  return epilogue.activation == Activation::relu ? A(0) : grad_y * A(epilogue.slope);
}

// Moments of more values, n of them (Chan, Golub and LeVeque 1983).
template <class A>
__device__ void join(A& count, A& mean, A& squares, A n, A its_mean, A its_squares) {
  const A total = count + n;
  if (n == 0) return;
  const A share = n / total, distance = its_mean - mean;
  mean += distance * share;
  squares += its_squares + distance * distance * share * count;
  count = total;
}

inline void check_channels(const Tensor& x, std::initializer_list<const Tensor*> vectors) {
  const DType sums = x.dtype == DType::float64 ? DType::float64 : DType::float32;
  for (const Tensor* vector : vectors) {
    check(vector->data == nullptr || (vector->dtype == sums && vector->size[1] == x.size[1] &&
                                      vector->numel() == x.size[1]),
          "batch_norm expects statistics, weights and sums of ", x.size[1],
          " values, float32 or, for float64, float64");
  }
}

inline void check_maps(const Tensor& x, std::initializer_list<const Tensor*> maps) {
  for (const Tensor* map : maps) {
    check(map->data == nullptr || (map->dtype == x.dtype && same_size(*map, x)),
          "batch_norm expects maps of one size and dtype");
  }
}

inline void check_mask(const Tensor& x, bool rows_are_pixels, const Tensor& mask, bool needed) {
  const int64_t plane = x.size[2] * x.size[3] * x.size[4];
  const int64_t rows = x.size[0] * (rows_are_pixels ? plane : x.size[1]);
  const int64_t bytes = ((rows_are_pixels ? x.size[1] : plane) + 7) / 8;
  check(mask.data != nullptr || !needed, "batch_norm expects the mask of its activation");
  check(mask.data == nullptr ||
            (mask.dtype == DType::uint8 && mask.size[0] * mask.size[1] == rows &&
             mask.size[4] == bytes && mask.numel() == rows * bytes && mask.stride[4] == 1),
        "batch_norm expects a mask of ", rows, " x ", bytes, " bytes");
}

// Leaves the parts of batch_norm_stats and batch_norm_grad_sums, and says so, where the maps lie
// alike (batch_norm_dense.cu).
bool launch_dense_moments(const BatchNormStats& args, const Shape& shape, int64_t stream);
bool launch_dense_sums(const BatchNormGradSums& args, const Shape& shape, int64_t stream);

}  // namespace pydl::cuda
