// The powers that Lp pooling takes (../pool_lp.h) for p = 1 and 2, in lanes.
#pragma once

#include <cmath>

#include "avg_divisor.h"

namespace pydl::cpu::PYDL_ISA {

template <int p>
struct Power {
  static_assert(p == 1 || p == 2);

  template <class A>
  static A of(A x) {
    return p == 1 ? x : x * x;
  }
  // x^(p - 1)
  template <class A>
  static A slope(A x) {
    return p == 1 ? A{1} : x;
  }
  // y^(1 - p)
  template <class A>
  static A inverse(A y) {
    return p == 1 ? A{1} : 1 / y;
  }
  // sum^(1 / p)
  template <class A>
  static A root(A sum) {
    if constexpr (p == 1) return sum;
    return std::sqrt(sum);
  }
};

// A fold of fold_rows: the sum of powers.
template <class P>
struct PowerSum {
  P power;

  template <class A>
  A first(A value) const {
    return power.of(value);
  }
  template <class A>
  A operator()(A sum, A value) const {
    return sum + power.of(value);
  }
};

// The factor by which the sum of a window counts for more than it holds, k / count, and the root of
// the product.
template <class A, class P>
struct Roots {
  const Divisor<A>& counts;  // of the taps inside the input
  A taps;                    // of a whole window
  P power;

  struct OfLine {
    typename Divisor<A>::OfLine counts;
    A taps;
    P power;

    A scale(int64_t o) const { return taps / counts.at(o); }
    A operator()(A sum, int64_t o) const { return power.root(sum * scale(o)); }
    auto window(int64_t o) const {
      return [by = scale(o), power = power](A sum, int64_t) { return power.root(sum * by); };
    }
    // What a window passes back: grad_y * scale * y^(1 - p).
    A share(A grad_y, A y, A scale) const {
      return y == 0 ? A{0} : grad_y * scale * power.inverse(y);
    }
  };
  OfLine of_line(int64_t d, int64_t h) const { return {counts.of_line(d, h), taps, power}; }
};

}  // namespace pydl::cpu::PYDL_ISA
