// The logistic function and tanh of vectors.
#pragma once

#include "exp_log.h"

namespace pydl::cpu::PYDL_ISA {

// tanh x = x + x^3 p(x^2) for |x| < 0.625 (Cephes), where 1 - e^-2x would cancel.
template <int lanes>
PYDL_INLINE Vec<float, lanes> tanh_near_zero(Vec<float, lanes> x) {
  const Vec<float, lanes> z = x * x;
  Vec<float, lanes> p = z * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  return p * z * x + x;
}
template <int lanes>
PYDL_INLINE Vec<double, lanes> tanh_near_zero(Vec<double, lanes> x) {
  const Vec<double, lanes> z = x * x;
  Vec<double, lanes> p = z * -9.64399179425052238628e-1 - 9.92877231001918586564e1;
  p = p * z - 1.61468768441708447952e3;
  Vec<double, lanes> q = z + 1.12811678491632931402e2;
  q = q * z + 2.23548839060100448583e3;
  q = q * z + 4.84406305325125486048e3;
  return x + x * z * (p / q);
}

// For the headers that are shared with CUDA.
template <class A, int lanes>
struct GateMath {
  using V = Vec<A, lanes>;

  // 1 / (1 + e^-x), from the exponential that cannot overflow.
  PYDL_INLINE static V sigmoid(V x) {
    const V e = exp_nonpositive<lanes, A>(x < V{} ? x : -x);
    return (x < V{} ? e : V{} + A{1}) / (e + A{1});
  }
  PYDL_INLINE static V tanh(V x) {
    const V size = x < V{} ? -x : x;
    const V e = exp_nonpositive<lanes, A>(size * A{-2});
    const V far = A{1} - (e + e) / (A{1} + e);  // the quotient is small: its rounding is, too
    return size < V{} + A(0.625) ? tanh_near_zero<lanes>(x) : (x < V{} ? -far : far);
  }
};

}  // namespace pydl::cpu::PYDL_ISA
