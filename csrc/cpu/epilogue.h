// Residual and activation of values in registers (definition in ../bias_act.h).
#pragma once

#include <bit>
#include <cmath>

#include "../bias_act.h"
#include "vec.h"

namespace pydl::cpu::PYDL_ISA {

// e^x within 1.5 units in the last place where x > -87, at least 1e-38 below, infinity where e^x
// is, NaN for NaN: 2^n times a polynomial of degree 6 (its Taylor terms, the last two fitted) in
// the rest r = x - n log 2, |r| <= 0.35.
template <int lanes>
PYDL_INLINE Vec<float, lanes> exponential(Vec<float, lanes> x) {
  using V = Vec<float, lanes>;
  using I = Vec<int32_t, lanes>;
  x = x < -87.0f ? V{} - 87.0f : x;
  x = x > 89.0f ? V{} + 89.0f : x;
  const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  const V shifted = x * 1.44269504f + shift;
  const V n = shifted - shift;
  const V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  V p = r * 1.3981999507e-3f + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 0.5f;
  p = p * (r * r) + r + 1.0f;
  // 2^n in two steps, each of them in range.
  const I whole = std::bit_cast<I>(shifted) - 0x4b400000;
  const I half = whole >> 1;
  return p * std::bit_cast<V>((half + 127) << 23) * std::bit_cast<V>((whole - half + 127) << 23);
}

template <int lanes>
PYDL_INLINE Vec<double, lanes> exponential(Vec<double, lanes> x) {
  double values[lanes];
  std::memcpy(values, &x, sizeof(x));
  for (int lane = 0; lane < lanes; ++lane) values[lane] = std::exp(values[lane]);
  std::memcpy(&x, values, sizeof(x));
  return x;
}

template <Activation activation, int lanes, class A>
PYDL_INLINE Vec<A, lanes> activated(const Vec<A, lanes>& z, [[maybe_unused]] A slope) {
  using V = Vec<A, lanes>;
  if constexpr (activation == Activation::relu) return z <= A{0} ? V{} : z;
  if constexpr (activation == Activation::leaky_relu) return z > A{0} ? z : z * slope;
  if constexpr (activation == Activation::silu) return z / (exponential<lanes>(V(-z)) + A{1});
  return z;
}

// grad_y * y'(z) from saved = z.
template <Activation activation, int lanes, class A>
PYDL_INLINE Vec<A, lanes> differentiated(const Vec<A, lanes>& grad, const Vec<A, lanes>& saved,
                                         [[maybe_unused]] A slope) {
  using V = Vec<A, lanes>;
  if constexpr (activation == Activation::relu) return saved <= A{0} ? V{} : grad;
  if constexpr (activation == Activation::leaky_relu) return saved > A{0} ? grad : grad * slope;
  if constexpr (activation == Activation::silu) {
    const V gate = A{1} / (exponential<lanes>(V(-saved)) + A{1});
    return grad * gate * (saved * (A{1} - gate) + A{1});
  }
  return grad;
}

// Calls function.operator()<activation>().
template <class Function>
inline void with_activation(Activation activation, Function&& function) {
  switch (activation) {
    case Activation::none:
      return function.template operator()<Activation::none>();
    case Activation::relu:
      return function.template operator()<Activation::relu>();
    case Activation::leaky_relu:
      return function.template operator()<Activation::leaky_relu>();
    case Activation::silu:
      return function.template operator()<Activation::silu>();
  }
}

// y = activation(z + residual) of a row; residual == nullptr where there is none.
template <class T>
void finish_row(const accumulate_t<T>* z, const T* residual, T* y, int64_t size,
                const Epilogue& epilogue) {
  using A = accumulate_t<T>;
  const A slope = static_cast<A>(epilogue.slope);
  with_activation(epilogue.activation, [&]<Activation activation>() {
    for_blocks<A>(size, [&]<int lanes>(int64_t first, Lanes<lanes>) PYDL_INLINE_BODY {
      Vec<A, lanes> value = load_vec<lanes>(z + first);
      if (residual != nullptr) value += load_vec<lanes>(residual + first);
      store_vec<lanes>(activated<activation, lanes, A>(value, slope), y + first);
    });
  });
}

}  // namespace pydl::cpu::PYDL_ISA
