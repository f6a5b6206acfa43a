// Exponential and logarithm of vectors, for the arguments that a softmax has.
#pragma once

#include <bit>
#include <limits>

#include "vec.h"

namespace pydl::cpu::PYDL_ISA {

template <class A>
struct ExpLog;
template <>
struct ExpLog<float> {
  static constexpr float shift = 0x1.8p23f;  // adding it rounds to a whole number
  static constexpr int32_t shift_bits = 0x4b400000;
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float least = -87.33654f;      // log 2^-126
  static constexpr float log2_high = 0x1.63p-1f;  // times a whole exponent it is exact
  static constexpr float log2_low = -2.12194440e-4f;
  static constexpr int32_t root_bits = 0x3f3504f3;  // of sqrt(1/2)
  static constexpr int log_terms = 5;
};
template <>
struct ExpLog<double> {
  static constexpr double shift = 0x1.8p52;
  static constexpr int64_t shift_bits = 0x4338000000000000;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double least = -708.3964185322641;  // log 2^-1022
  static constexpr double log2_high = 0x1.62e42feep-1;
  static constexpr double log2_low = 0x1.a39ef35793c76p-33;
  static constexpr int64_t root_bits = 0x3fe6a09e667f3bcd;
  static constexpr int log_terms = 11;
};

// e^r, |r| <= 0.35.
template <int lanes>
PYDL_INLINE Vec<float, lanes> exp_of_rest(Vec<float, lanes> r) {
  // Taylor's terms, the last two fitted.
  Vec<float, lanes> p = r * 1.3981999507e-3f + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 0.5f;
  return p * (r * r) + r + 1.0f;
}
template <int lanes>
PYDL_INLINE Vec<double, lanes> exp_of_rest(Vec<double, lanes> r) {
  // Taylor's terms; the first that is left out is below 5e-18.
  Vec<double, lanes> p = r * (1 / 6227020800.0) + 1 / 479001600.0;
  p = p * r + 1 / 39916800.0;
  p = p * r + 1 / 3628800.0;
  p = p * r + 1 / 362880.0;
  p = p * r + 1 / 40320.0;
  p = p * r + 1 / 5040.0;
  p = p * r + 1 / 720.0;
  p = p * r + 1 / 120.0;
  p = p * r + 1 / 24.0;
  p = p * r + 1 / 6.0;
  p = p * r + 0.5;
  return p * (r * r) + r + 1.0;
}

// e^x for x <= 0, within 1.5 units in the last place; 0 for -inf and wherever e^x is below the
// smallest normal number, NaN for NaN.
template <int lanes, class A>
PYDL_INLINE Vec<A, lanes> exp_nonpositive(Vec<A, lanes> x) {
  using V = Vec<A, lanes>;
  using I = Vec<Code<A>, lanes>;
  using E = ExpLog<A>;
  const V shifted = x * A(1.4426950408889634) + E::shift;
  const V n = shifted - E::shift;
  const V r = (x - n * E::log2_high) - n * E::log2_low;
  const I exponent = (std::bit_cast<I>(shifted) - (E::shift_bits - E::bias)) << E::mantissa;
  const V value = exp_of_rest<lanes>(r) * std::bit_cast<V>(exponent);
  return x < E::least ? V{} : value;
}

// log s for normal s > 0, within 2 units in the last place; NaN for NaN. s = 2^e m with m in
// [sqrt(1/2), sqrt(2)) and log m = 2 artanh((m - 1) / (m + 1)).
template <int lanes, class A>
PYDL_INLINE Vec<A, lanes> log_positive(Vec<A, lanes> s) {
  using V = Vec<A, lanes>;
  using I = Vec<Code<A>, lanes>;
  using E = ExpLog<A>;
  const I bits = std::bit_cast<I>(s);
  const I exponent = (bits - E::root_bits) >> E::mantissa;
  const V m = std::bit_cast<V>(bits - (exponent << E::mantissa));
  V e;
  if constexpr (lanes == 1) {
    e = static_cast<A>(exponent);
  } else {
    e = __builtin_convertvector(exponent, V);
  }
  const V t = (m - A{1}) / (m + A{1}), square = t * t;
  V p = V{} + A{1} / (2 * E::log_terms + 1);
  for (int term = E::log_terms - 1; term > 0; --term) p = p * square + A{1} / (2 * term + 1);
  const V log = e * E::log2_high + (t + t + (t * A{2} * square * p + e * E::log2_low));
  return s == s ? log : s;
}

}  // namespace pydl::cpu::PYDL_ISA
