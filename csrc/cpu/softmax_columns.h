// The two passes that softmax and cross entropy begin with, of one row (inner == 1) and of a block
// of columns side by side: the largest element and the sum of exponentials.
#pragma once

#include <array>

#include "exp_log.h"
#include "stream.h"

namespace pydl::cpu::PYDL_ISA {

// Elements of a block of columns: its values, widened, stay in the second-level cache between the
// passes.
inline constexpr int64_t kBlockElements = 24576;

// Columns of a block: a page of memory per class where there are few classes, a few cache lines
// where there are many.
inline int64_t block_width(int64_t classes, int64_t inner) {
  const int64_t most = std::clamp<int64_t>(kBlockElements / classes / 64 * 64, 64, 1024);
  return std::min(inner, most);
}

// Calls body(first, skipped) for blocks of `lanes` that cover a row of `size`, the last moved back:
// its lanes before `skipped` were in the block before.
template <int lanes, class Body>
PYDL_INLINE void for_row(int64_t size, Body body) {
  int64_t first = 0;
  for (; first + lanes <= size; first += lanes) body(first, std::false_type{}, 0);
  if (first < size) body(size - lanes, std::true_type{}, static_cast<int>(first - (size - lanes)));
}

// `values` with 0 in the lanes before `skipped`.
template <int lanes, class A>
PYDL_INLINE Vec<A, lanes> without(Vec<A, lanes> values, int skipped) {
  if constexpr (lanes == 1) {
    return values;
  } else {
    using I = Vec<Code<A>, lanes>;
    static constexpr auto numbers = [] {
      std::array<Code<A>, lanes> all{};
      for (int lane = 0; lane < lanes; ++lane) all[lane] = lane;
      return all;
    }();
    const I number = std::bit_cast<I>(numbers);
    return number < static_cast<Code<A>>(skipped) ? Vec<A, lanes>{} : values;
  }
}

// The sum of a row's vectors. Sixteen at a time, so that the error of a long row's sum does not
// grow with its length.
template <int lanes, class A>
class RowSum {
 public:
  PYDL_INLINE void add(const Vec<A, lanes>& values) {
    some_ += values;
    if (++count_ % 16 != 0) return;
    all_ += some_;
    some_ = Vec<A, lanes>{};
  }
  template <class Last>
  PYDL_INLINE void add(const Vec<A, lanes>& values, Last, int skipped) {
    add(Last::value ? without<lanes, A>(values, skipped) : values);
  }
  PYDL_INLINE A total() const { return sum_lanes<lanes, A>(Vec<A, lanes>(all_ + some_)); }

 private:
  Vec<A, lanes> some_{}, all_{};
  int count_ = 0;
};

// A NaN is not seen here, but by the sum.
template <int lanes, class T>
PYDL_INLINE accumulate_t<T> row_peak(const T* x, int64_t size) {
  using A = accumulate_t<T>;
  Vec<A, lanes> peak = Vec<A, lanes>{} - std::numeric_limits<A>::infinity();
  for_row<lanes>(size, [&](int64_t first, auto, int) PYDL_INLINE_BODY {
    const Vec<A, lanes> value = load_vec<lanes>(x + first);
    peak = value > peak ? value : peak;
  });
  return max_lanes<lanes, A>(peak);
}

// The sum of e^(x - peak). each(first, e) sees every vector of exponentials.
template <int lanes, class T, class Each>
PYDL_INLINE accumulate_t<T> row_total(const T* x, int64_t size, accumulate_t<T> peak, Each each) {
  using A = accumulate_t<T>;
  RowSum<lanes, A> total;
  for_row<lanes>(size, [&](int64_t first, auto last, int skipped) PYDL_INLINE_BODY {
    const Vec<A, lanes> e = exp_nonpositive<lanes, A>(load_vec<lanes>(x + first) - peak);
    each(first, e);
    total.add(e, last, skipped);
  });
  return total.total();
}

// peak[i] = the largest x[c * step + i], two classes at a time.
template <class T>
void column_peaks(const T* x, int64_t classes, int64_t step, int64_t width, accumulate_t<T>* peak) {
  using A = accumulate_t<T>;
  for_vectors_once<A>(width, [&]<int lanes>(int64_t i, Lanes<lanes>) PYDL_INLINE_BODY {
    store_vec<lanes>(load_vec<lanes>(x + i), peak + i);
  });
  for (int64_t c = 1; c < classes; c += 2) {
    const T *first = x + c * step, *second = c + 1 < classes ? first + step : first;
    for_vectors_once<A>(width, [=]<int lanes>(int64_t i, Lanes<lanes>) PYDL_INLINE_BODY {
      Vec<A, lanes> most = load_vec<lanes>(peak + i);
      const Vec<A, lanes> a = load_vec<lanes>(first + i), b = load_vec<lanes>(second + i);
      most = a > most ? a : most;
      store_vec<lanes>(Vec<A, lanes>(b > most ? b : most), peak + i);
    });
  }
}

// total[i] = the sum of e^(x[c * step + i] - peak[i]). each(c, i, value, e, Lanes) sees every
// vector of x - peak and of exponentials.
template <class T, class Each>
PYDL_INLINE void column_totals(const T* x, int64_t classes, int64_t step, int64_t width,
                               const accumulate_t<T>* peak, accumulate_t<T>* total, Each each) {
  using A = accumulate_t<T>;
  std::fill_n(total, width, A{0});
  for (int64_t c = 0; c < classes; ++c) {
    const T* from = x + c * step;
    for_vectors_once<A>(width, [=]<int lanes>(int64_t i, Lanes<lanes> constant) PYDL_INLINE_BODY {
      const Vec<A, lanes> value = load_vec<lanes>(from + i) - load_vec<lanes>(peak + i);
      const Vec<A, lanes> e = exp_nonpositive<lanes, A>(value);
      store_vec<lanes>(Vec<A, lanes>(load_vec<lanes>(total + i) + e), total + i);
      each(c, i, value, e, constant);
    });
  }
}

}  // namespace pydl::cpu::PYDL_ISA
