// A tensor as the kernels see it: a pointer, five sizes, five strides. No ownership, no torch.
//
// The axes are always N, C, D, H, W. A map of fewer spatial axes has ones in front of those it has:
// (N, C, L) is (N, C, 1, 1, L), (N, C, H, W) is (N, C, 1, H, W); a vector of C values (a bias) is
// (1, C, 1, 1, 1). A convolution's weight (Cout, Cin/groups, ...) enters the same way, Cout as N
// and Cin/groups as C. Strides count elements, may be zero (expanded) and are never negative.
#pragma once

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

#include "half.h"

namespace pydl {

enum class DType : int { float32, float64, float16, bfloat16, uint8, int64 };

struct Tensor {
  void* data;
  DType dtype;
  int64_t size[5];
  int64_t stride[5];

  int64_t numel() const { return size[0] * size[1] * size[2] * size[3] * size[4]; }
  // Whether neighbours in memory are neighbouring channels. Where C == 1 or the map is one pixel
  // both answers describe the same memory; the caller's strides decide.
  bool channels_last() const { return stride[1] == 1 && (size[1] > 1 || stride[4] != 1); }
};

// The typed form of a Tensor, passed to kernels by value.
template <class T>
struct View {
  T* data;
  int64_t size[5];
  int64_t stride[5];

  View() = default;
  explicit View(const Tensor& tensor) : data(static_cast<T*>(tensor.data)) {
    for (int axis = 0; axis < 5; ++axis) {
      size[axis] = tensor.size[axis];
      stride[axis] = tensor.stride[axis];
    }
  }

  PYDL_HOST_DEVICE T& at(int64_t n, int64_t c, int64_t d, int64_t h, int64_t w) const {
    return data[n * stride[0] + c * stride[1] + d * stride[2] + h * stride[3] + w * stride[4]];
  }
};

// Raises ValueError in Python. The message is one sentence: what was given, what is accepted.
template <class... Parts>
void check(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

// Calls function(T{}) with the element type that dtype names; `what` begins the message where it is
// none of them.
template <class Function>
void dispatch_floating(DType dtype, const char* what, Function&& function) {
  switch (dtype) {
    case DType::float32:
      return function(float{});
    case DType::float64:
      return function(double{});
    case DType::float16:
      return function(float16{});
    case DType::bfloat16:
      return function(bfloat16{});
    default:
      throw std::invalid_argument(std::string(what) +
                                  " serves float32, float64, float16 and bfloat16 only");
  }
}

}  // namespace pydl
