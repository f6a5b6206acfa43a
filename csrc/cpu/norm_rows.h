// What the kernels of response normalisation share, across channels (lrn.cpp) and within one
// (spatial_norm.cpp): the power of the scale, and one row of each pass, given the rows of its
// window.
//
//   scale    = k + rate * sum of x^2 over the window
//   y        = x * scale^-beta
//   direct   = grad_y * scale^-beta
//   indirect = direct * x / scale
//   slope    = 2 * rate * beta
//   grad_x   = direct - slope * x * sum of indirect over the transposed window
#pragma once

#include <cmath>
#include <limits>

#include "parallel.h"
#include "rows.h"

namespace pydl::cpu::PYDL_ISA {

// scale^-beta and 1 / scale.
template <class A>
struct Inverses {
  A power, scale;
};

// scale^0.75 as sqrt(scale * sqrt(scale)): two roundings, where sqrt(scale) * sqrt(sqrt(scale)) has
// three and, near scale = 1, more than twice the error of a correctly rounded power. A power of two
// keeps scale^1.5 in range.
template <class A>
struct ThreeQuarters {
  static constexpr A kSmall = sizeof(A) == 8 ? A(0x1p-516) : A(0x1p-66),
                     kRoot = sizeof(A) == 8 ? A(0x1p-258) : A(0x1p-33);

  explicit ThreeQuarters(double) {}
  Inverses<A> operator()(A scale) const {
    const A factor = scale > 1 ? kSmall : 1 / kSmall, undo = scale > 1 ? 1 / kRoot : kRoot;
    const A root = std::sqrt(scale), inverse = 1 / (std::sqrt(scale * factor * root) * undo);
    // scale^-0.25 * scale^-0.75; bounded, an infinite scale gives 0 and not infinity * 0.
    return {inverse, std::min(root, std::numeric_limits<A>::max()) * inverse * inverse};
  }
};

template <class A>
struct Half {
  explicit Half(double) {}
  Inverses<A> operator()(A scale) const {
    const A inverse = 1 / std::sqrt(scale);
    return {inverse, inverse * inverse};
  }
};

template <class A>
struct One {
  explicit One(double) {}
  Inverses<A> operator()(A scale) const { return {1 / scale, 1 / scale}; }
};

template <class A>
struct AnyPower {
  A beta;
  explicit AnyPower(double beta) : beta(static_cast<A>(beta)) {}
  Inverses<A> operator()(A scale) const { return {1 / std::pow(scale, beta), 1 / scale}; }
};

template <int lanes, class A, class Exponent>
PYDL_INLINE void invert(const Exponent& inverses_of, const A* scale, A* power, A* reciprocal) {
  PYDL_LANES
  for (int lane = 0; lane < lanes; ++lane) {
    const Inverses<A> inverses = inverses_of(scale[lane]);
    power[lane] = inverses.power, reciprocal[lane] = inverses.scale;
  }
}

#if defined(__AVX512F__)
// Without roots and divisions, which take 38 cycles of a Zen 4 where this takes 14: estimates of 14
// bits, each doubled by one step of Newton's method. Scales so small or large that a step would
// overflow, and NaN, go the plain way.
template <int lanes>
  requires(lanes == 16)
PYDL_INLINE void invert(const ThreeQuarters<float>& exact, const float* from, float* power,
                        float* reciprocal) {
  const __m512 scale = _mm512_loadu_ps(from), half = _mm512_set1_ps(0.5f);
  const __mmask16 small = _mm512_cmp_ps_mask(scale, _mm512_set1_ps(0x1p-60f), _CMP_NGE_UQ);
  const __mmask16 large = _mm512_cmp_ps_mask(scale, _mm512_set1_ps(0x1p60f), _CMP_NLE_UQ);
  if (__builtin_expect((small | large) != 0, 0))
    return invert<lanes, float>(exact, from, power, reciprocal);
  // r = scale^-1/2: r += r * (1 - scale * r^2) / 2
  __m512 r = _mm512_rsqrt14_ps(scale);
  const __m512 rest = _mm512_fnmadd_ps(_mm512_mul_ps(scale, r), r, _mm512_set1_ps(1));
  r = _mm512_fmadd_ps(_mm512_mul_ps(r, half), rest, r);
  // q = scale^-1/4 = sqrt(r): q += q * (1 - q * t) / 2 with t = r^-1/2, q = r * t
  const __m512 t = _mm512_rsqrt14_ps(r);
  __m512 q = _mm512_mul_ps(r, t);
  q = _mm512_fmadd_ps(_mm512_mul_ps(q, half), _mm512_fnmadd_ps(q, t, _mm512_set1_ps(1)), q);
  _mm512_storeu_ps(power, _mm512_mul_ps(r, q));
  _mm512_storeu_ps(reciprocal, _mm512_mul_ps(r, r));
}
#endif

// The constants of the formulas above.
template <class A, class Exponent>
struct Scale {
  A rate, k, slope;
  Exponent inverses_of;

  Scale(double rate, double beta, double k)
      : rate(static_cast<A>(rate)),
        k(static_cast<A>(k)),
        slope(static_cast<A>(2 * rate * beta)),
        inverses_of(beta) {}
};

// Both passes of one row. `rows` are the rows of the window, which the kernels find
// differently: other channels at the same positions, the same channels displaced, other lines.

constexpr auto identity = [](auto value) { return value; };
constexpr auto square = [](auto value) { return value * value; };

// Prefetches, beside the elements of a row, what will be needed after it: elements of `size` bytes
// to read at two places, or to write at one.
struct ReadAhead {
  const char *x, *grad;
  int64_t size;

  template <class T>
  ReadAhead(const T* x, const T* grad)
      : x(reinterpret_cast<const char*>(x)),
        grad(reinterpret_cast<const char*>(grad)),
        size(sizeof(T)) {}
  PYDL_INLINE void operator()(int64_t at) const { fetch(x + at * size), fetch(grad + at * size); }
};
struct ReadAndWriteAhead {
  const char *x, *y;
  int64_t size;

  template <class T>
  ReadAndWriteAhead(const T* x, const T* y)
      : x(reinterpret_cast<const char*>(x)), y(reinterpret_cast<const char*>(y)), size(sizeof(T)) {}
  PYDL_INLINE void operator()(int64_t at) const {
    fetch(x + at * size), fetch_to_write(y + at * size);
  }
};
struct WriteAhead {
  const char* to;
  int64_t size;

  template <class T>
  explicit WriteAhead(const T* to) : to(reinterpret_cast<const char*>(to)), size(sizeof(T)) {}
  PYDL_INLINE void operator()(int64_t at) const { fetch_to_write(to + at * size); }
};
struct NothingAhead {
  PYDL_INLINE void operator()(int64_t) const {}
};

template <int fixed, int lanes, class A, class Map>
PYDL_INLINE void sum_rows(const A* const* rows, int64_t count, int64_t first, A* sum, Map map) {
  PYDL_LANES
  for (int lane = 0; lane < lanes; ++lane) sum[lane] = A{0};
  for (int64_t row = 0; row < (fixed ? fixed : count); ++row) {
    const A* from = rows[row] + first;
    PYDL_LANES
    for (int lane = 0; lane < lanes; ++lane) sum[lane] += map(from[lane]);
  }
}

template <class A, class Exponent, class Map, class Ahead>
void normalise(const Scale<A, Exponent>& of, const A* const* rows, int64_t count, const A* x, A* y,
               int64_t size, Map map, Ahead ahead) {
  with_count<A, 3, 5>(count, [&]<int fixed>(Lanes<fixed>) {
    for_lines(size, y, [=]<int lanes>(int64_t first, Lanes<lanes>) {
      A sum[lanes];
      sum_rows<fixed, lanes>(rows, count, first, sum, map);
      const A* from = x + first;
      ahead(first);
      A *to = y + first, scale[lanes], power[lanes], reciprocal[lanes];
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane) scale[lane] = of.k + of.rate * sum[lane];
      invert<lanes>(of.inverses_of, scale, power, reciprocal);
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane) to[lane] = from[lane] * power[lane];
    });
  });
}

// direct = grad_y * scale^-beta, indirect = direct * x / scale
template <class A, class Exponent, class Map, class Ahead>
void differentiate(const Scale<A, Exponent>& of, const A* const* rows, int64_t count, const A* x,
                   const A* grad_y, A* direct, A* indirect, int64_t size, Map map, Ahead ahead) {
  with_count<A, 3, 5>(count, [&]<int fixed>(Lanes<fixed>) {
    for_blocks<A>(size, [=]<int lanes>(int64_t first, Lanes<lanes>) {
      A sum[lanes];
      sum_rows<fixed, lanes>(rows, count, first, sum, map);
      const A *value = x + first, *grad = grad_y + first;
      ahead(first);
      A *to_direct = direct + first, *to_indirect = indirect + first, scale[lanes], power[lanes],
        reciprocal[lanes];
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane) scale[lane] = of.k + of.rate * sum[lane];
      invert<lanes>(of.inverses_of, scale, power, reciprocal);
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane) {
        const A part = grad[lane] * power[lane];
        to_direct[lane] = part;
        to_indirect[lane] = part * value[lane] * reciprocal[lane];
      }
    });
  });
}

// grad_x = direct - slope * x * sum of the indirect rows of the transposed window
template <class A, class Ahead>
void collect(A slope, const A* const* rows, int64_t count, const A* x, const A* direct, A* grad_x,
             int64_t size, Ahead ahead) {
  with_count<A, 3, 5>(count, [&]<int fixed>(Lanes<fixed>) {
    for_blocks<A>(size, [=]<int lanes>(int64_t first, Lanes<lanes>) {
      A sum[lanes];
      sum_rows<fixed, lanes>(rows, count, first, sum, identity);
      ahead(first);
      const A *value = x + first, *part = direct + first;
      A* to = grad_x + first;
      PYDL_LANES
      for (int lane = 0; lane < lanes; ++lane)
        to[lane] = part[lane] - slope * value[lane] * sum[lane];
    });
  });
}

template <class A>
void square_row(const A* x, A* squares, int64_t size) {
  for_blocks<A>(size, [=]<int lanes>(int64_t first, Lanes<lanes>) {
    const A* value = x + first;
    A* to = squares + first;
    PYDL_LANES
    for (int lane = 0; lane < lanes; ++lane) to[lane] = value[lane] * value[lane];
  });
}

// Rows between memory and the type they are computed in

template <class T>
inline constexpr bool kConverts = !std::is_same_v<T, accumulate_t<T>>;

// Rows by number, of which the last `window` are kept.
template <class A>
struct Ring {
  A* memory;
  int64_t window, pitch;

  A* operator[](int64_t number) const { return memory + number % window * pitch; }
};

// Rows of T to read as rows of A by number: in place where they have the type, else copies of the
// last `window` of them.
template <class T>
class RowReader {
 public:
  using A = accumulate_t<T>;

  RowReader(const T* rows, int64_t pitch, int64_t size, const Ring<A>& copies)
      : rows_(rows), pitch_(pitch), size_(size), copies_(copies) {}

  // Rows before `end` are wanted from now on.
  void reach(int64_t end) {
    if constexpr (kConverts<T>) {
      for (; end_ < end; ++end_) load_row(rows_ + end_ * pitch_, copies_[end_], size_);
    }
  }
  const A* operator[](int64_t number) const {
    if constexpr (kConverts<T>) {
      return copies_[number];
    } else {
      return rows_ + number * pitch_;
    }
  }

 private:
  const T* rows_;
  int64_t pitch_, size_;
  Ring<A> copies_;
  int64_t end_ = 0;
};

// Calls function(to) to write a row: the row itself where it has the type, else a copy that is then
// converted.
template <class T, class Function>
void write(T* row, int64_t size, accumulate_t<T>* copy, Function function) {
  if constexpr (kConverts<T>) {
    function(copy);
    store_row(copy, row, size);
  } else {
    function(row);
  }
}

// Calls function.operator()<T, Exponent>() for this dtype and beta. In double, which is for checking
// gradients, any beta is a power.
template <class Function>
inline void with_exponent(const char* what, DType dtype, double beta, Function&& function) {
  dispatch_floating(dtype, what, [&]<class T>(T) {
    using A = accumulate_t<T>;
    if constexpr (sizeof(A) == 8) return function.template operator()<T, AnyPower<A>>();
    if (beta == 0.75) return function.template operator()<T, ThreeQuarters<A>>();
    if (beta == 0.5) return function.template operator()<T, Half<A>>();
    if (beta == 1) return function.template operator()<T, One<A>>();
    function.template operator()<T, AnyPower<A>>();
  });
}

}  // namespace pydl::cpu::PYDL_ISA
