// What both passes of Lp pooling (../pool_lp.h) share: the powers for p = 1 and 2, in lanes, and the
// windows for any other p.
#pragma once

#include <cmath>

#include "../pool_lp.h"
#include "avg_divisor.h"
#include "parallel.h"

namespace pydl::cpu::PYDL_ISA {

// The power of what comes once per output or input, where a comparison costs nothing.
struct Power {
  bool squares;  // p = 2, else 1

  // x^(p - 1)
  template <class A>
  A slope(A x) const {
    return squares ? x : A{1};
  }
  // y^(1 - p)
  template <class A>
  A inverse(A y) const {
    return squares ? 1 / y : A{1};
  }
  // sum^(1 / p)
  template <class A>
  A root(A sum) const {
    return squares ? std::sqrt(sum) : sum;
  }
};

// A fold of fold_rows: the sum of squares.
struct SumOfSquares {
  template <class A>
  A first(A value) const {
    return value * value;
  }
  template <class A>
  A operator()(A sum, A value) const {
    return sum + value * value;
  }
};

// The factor by which the sum of a window counts for more than it holds, k / count, and the root of
// the product.
template <class A>
struct Roots {
  const Divisor<A>& counts;  // of the taps inside the input
  A taps;                    // of a whole window
  Power power;

  struct OfLine {
    typename Divisor<A>::OfLine counts;
    A taps;
    Power power;

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

inline int64_t taps_of(const PoolWindow& window) {
  return window.kernel[0] * window.kernel[1] * window.kernel[2];
}

// Any other p, which no known network has: one output at a time, by the C library's powers, which
// cost more than all else.

// The runs of taps of window o inside the input, and the factor by which its sum counts for more
// than those.
struct AnyWindow {
  Axis axis[3];

  AnyWindow(const PoolWindow& window, const Tensor& x, const Tensor& y)
      : axis{Axis(window, x, y, 0), Axis(window, x, y, 1), Axis(window, x, y, 2)} {}

  int64_t end(int spatial, int64_t o) const {
    return std::min(axis[spatial].start(o) + axis[spatial].kernel, axis[spatial].inputs);
  }
  double scale(int64_t od, int64_t oh, int64_t ow) const {
    const int64_t o[] = {od, oh, ow};
    double scale = 1;
    for (int i = 0; i < 3; ++i)
      scale *= static_cast<double>(axis[i].kernel) / (end(i, o[i]) - axis[i].start(o[i]));
    return scale;
  }
};

// Calls visit(n, c, d, h, w) for all elements of a map, shared out by planes.
template <class Visit>
void for_elements(const Tensor& map, int64_t threads, const Visit& visit) {
  const int64_t planes = map.size[0] * map.size[1];
  share_out(planes, team_size(planes, map.numel(), threads),
            [&](int64_t, int64_t first, int64_t last) {
              for (int64_t plane = first; plane < last; ++plane) {
                const int64_t n = plane / map.size[1], c = plane % map.size[1];
                for (int64_t d = 0; d < map.size[2]; ++d) {
                  for (int64_t h = 0; h < map.size[3]; ++h) {
                    for (int64_t w = 0; w < map.size[4]; ++w) visit(n, c, d, h, w);
                  }
                }
              }
            });
}

}  // namespace pydl::cpu::PYDL_ISA
