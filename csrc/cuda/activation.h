// The epilogue of ../bias_act.h, one value at a time: what a kernel does to a sum before it stores
// it.
#pragma once

#include <cmath>
#include <type_traits>

#include "../bias_act.h"
#include "device.h"

namespace pydl::cuda {

// y of z. Comparisons are written so that NaN stays NaN.
template <class A>
__device__ __forceinline__ A activated(A z, const Epilogue& epilogue) {
  switch (epilogue.activation) {
    case Activation::relu:
      return z <= 0 ? A(0) : z;
    case Activation::leaky_relu:
      return z > 0 ? z : A(epilogue.slope) * z;
    case Activation::silu:
      return z / (1 + exp(-z));
    default:
      return z;
  }
}

// The derivative y'(z).
template <class A>
__device__ __forceinline__ A slope_of_activation(A z, const Epilogue& epilogue) {
  switch (epilogue.activation) {
    case Activation::relu:
      return z <= 0 ? A(0) : A(1);
    case Activation::leaky_relu:
      return z > 0 ? A(1) : A(epilogue.slope);
    case Activation::silu: {
      const A gate = 1 / (1 + exp(-z));
      return gate * (1 + z * (1 - gate));
    }
    default:
      return 1;
  }
}

template <Activation activation>
using Is = std::integral_constant<Activation, activation>;

// Calls function(Is<activation>{}) if that is one of the `kinds`: for what is done to several
// values, so that a thread chooses once.
template <Activation... kinds, class Function>
__device__ __forceinline__ void with_activation(Activation activation, const Function& function) {
  static_cast<void>(((activation == kinds && (function(Is<kinds>{}), true)) || ...));
}

}  // namespace pydl::cuda
