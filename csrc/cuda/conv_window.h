// Walks over a convolution's window that several kernels share: the residue classes of a strided
// data gradient, pixels counted through a batch, and sums in splits.
#pragma once

#include <numeric>

#include "../conv.h"
#include "element.h"

namespace pydl::cuda {

// The inputs of one axis that leave the remainder `residue` of stride, as the outputs q of a dense
// window of stride 1 over grad_y: q reads q + start + j * dilation for j in [0, taps), and its tap
// j is the convolution's tap first_tap + j * tap_step.
struct ResidueClass {
  int64_t first, outputs;  // inputs first, first + stride, ...
  int64_t first_tap, tap_step, taps;
  int64_t start, dilation;
};

inline ResidueClass residue_class(const ConvWindow& window, int axis, int64_t residue, int64_t size,
                                  int64_t kernel) {
  const int64_t stride = window.stride[axis], dilation = window.dilation[axis];
  const int64_t divisor = std::gcd(stride, dilation);
  ResidueClass c = {};
  c.first = residue;
  c.outputs = (size - residue - 1) / stride + 1;
  c.tap_step = stride / divisor;
  c.dilation = -(dilation / divisor);
  const int64_t reach = residue + window.padding[axis];
  // The taps that fit repeat after tap_step: one of the first tap_step does, or none at all.
  while (c.first_tap < c.tap_step && (reach - c.first_tap * dilation) % stride != 0) ++c.first_tap;
  if (c.first_tap == c.tap_step || c.first_tap >= kernel) {
    c.first_tap = 0;
    return c;
  }
  c.taps = (kernel - c.first_tap - 1) / c.tap_step + 1;
  c.start = (reach - c.first_tap * dilation) / stride;
  return c;
}

// Calls run(classes) for every combination of the three axes' residue classes that has inputs.
template <class Function>
void for_each_class(const ConvWindow& window, const Tensor& grad_x, const Tensor& weight,
                    Function&& run) {
  const auto classes = [&](int axis) { return min(window.stride[axis], grad_x.size[axis + 2]); };
  const auto class_of = [&](int axis, int64_t residue) {
    return residue_class(window, axis, residue, grad_x.size[axis + 2], weight.size[axis + 2]);
  };
  for (int64_t d = 0; d < classes(0); ++d) {
    for (int64_t h = 0; h < classes(1); ++h) {
      for (int64_t w = 0; w < classes(2); ++w) {
        const ResidueClass three[3] = {class_of(0, d), class_of(1, h), class_of(2, w)};
        run(three);
      }
    }
  }
}

// One output position of one image.
struct Pixel {
  int n, o[3];

  // Adds (n, o), each digit below its base; n has none.
  __device__ __forceinline__ void advance(const int (&digits)[4], const int (&outputs)[3]) {
    int carry = 0;
    UNROLLED
    for (int axis = 2; axis >= 0; --axis) {
      o[axis] += digits[axis + 1] + carry;
      carry = o[axis] >= outputs[axis];
      if (carry) o[axis] -= outputs[axis];
    }
    n += digits[0] + carry;
  }
};

__device__ inline Pixel pixel_of(int64_t number, const int (&outputs)[3]) {
  Pixel pixel;
  for (int axis = 2; axis >= 0; --axis)
    pixel.o[axis] = static_cast<int>(take(number, outputs[axis]));
  pixel.n = static_cast<int>(number);
  return pixel;
}

// A number of pixels as what Pixel::advance adds.
inline void digits_of(int64_t number, const int (&outputs)[3], int (&digits)[4]) {
  for (int axis = 2; axis >= 0; --axis) {
    digits[axis + 1] = static_cast<int>(number % outputs[axis]);
    number /= outputs[axis];
  }
  digits[0] = static_cast<int>(number);
}

// grad_weight = the sum of parts [splits, F, columns] over the splits in ascending order, where
// column tap * columns_a_tap + c holds a filter's weight (c, tap). A thread owns one weight,
// numbered with the channel innermost as the columns are.
template <class T>
__global__ void add_splits(const accumulate_t<T>* parts, View<T> grad_weight, int64_t splits,
                           int64_t columns, int64_t columns_a_tap, int64_t count) {
  const int64_t number = thread_number();
  if (number >= count) return;
  const auto [f, c, d, h, w] = element_of(number, grad_weight.size, true);
  const int64_t tap = (d * grad_weight.size[3] + h) * grad_weight.size[4] + w;
  const accumulate_t<T>* part = parts + f * columns + tap * columns_a_tap + c;
  accumulate_t<T> sum = 0;
  for (int64_t split = 0; split < splits; ++split)
    sum += part[split * grad_weight.size[0] * columns];
  grad_weight.at(f, c, d, h, w) = T(sum);
}

}  // namespace pydl::cuda
