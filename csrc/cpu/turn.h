// Rows and columns exchanged, in squares of vectors: one shuffle per four elements.
#pragma once

#include "vec.h"

namespace pydl::cpu::PYDL_ISA {

#if defined(__GNUC__) && !defined(__clang__)
// Which elements of two rows, `step` apart, go into the upper row and which into the lower.
template <class Index, int lanes, int step>
struct Exchanged {
  Index upper[lanes], lower[lanes];
  constexpr Exchanged() : upper(), lower() {
    for (int k = 0; k < lanes; ++k) {
      upper[k] = k & step ? lanes + k - step : k;
      lower[k] = k & step ? lanes + k : k + step;
    }
  }
};

// Blocks of `step`, 2 * step, ... elements of a square change places across its diagonal.
template <int lanes, class A, int step>
PYDL_INLINE void exchange(Vec<A, lanes> (&rows)[lanes]) {
  if constexpr (step < lanes) {
    using I = Vec<Code<A>, lanes>;
    static constexpr Exchanged<Code<A>, lanes, step> order;
    I upper, lower;
    std::memcpy(&upper, order.upper, sizeof(upper));
    std::memcpy(&lower, order.lower, sizeof(lower));
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) {
      if (i & step) continue;
      const Vec<A, lanes> a = rows[i], b = rows[i + step];
      rows[i] = __builtin_shuffle(a, b, upper);
      rows[i + step] = __builtin_shuffle(a, b, lower);
    }
    exchange<lanes, A, 2 * step>(rows);
  }
}
#endif

// Rows and columns exchanged: to[j * to_pitch + i] = from[i * from_pitch + j].
template <int lanes, class A>
PYDL_INLINE void turn_block(const A* from, int64_t from_pitch, A* to, int64_t to_pitch) {
#if defined(__GNUC__) && !defined(__clang__)
  if constexpr (lanes > 1) {
    Vec<A, lanes> rows[lanes];
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) rows[i] = load_vec<lanes>(from + i * from_pitch);
    exchange<lanes, A, 1>(rows);
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) store_vec<lanes>(rows[i], to + i * to_pitch);
    return;
  }
#endif
  for (int i = 0; i < lanes; ++i) {
    for (int j = 0; j < lanes; ++j) to[j * to_pitch + i] = from[i * from_pitch + j];
  }
}

template <class A>
void turn(const A* from, int64_t from_pitch, int64_t rows, int64_t columns, A* to,
          int64_t to_pitch) {
  with_lanes<A>(std::min(rows, columns), [&]<int lanes>(Lanes<lanes>) {
    for_blocks_of<lanes>(rows, [&](int64_t i) {
      for_blocks_of<lanes>(columns, [&](int64_t j) PYDL_INLINE_BODY {
        turn_block<lanes>(from + i * from_pitch + j, from_pitch, to + j * to_pitch + i, to_pitch);
      });
    });
  });
}

// The same between rows of a type and columns of the type it is computed in; `row` has room for one
// row.
template <class T, class A>
void turn_wide(const T* from, int64_t from_pitch, int64_t rows, int64_t columns, A* to,
               int64_t to_pitch, A* row) {
  if constexpr (std::is_same_v<T, A>) {
    turn(from, from_pitch, rows, columns, to, to_pitch);
  } else {
    for (int64_t i = 0; i < rows; ++i) {
      load_row(from + i * from_pitch, row, columns);
      for (int64_t j = 0; j < columns; ++j) to[j * to_pitch + i] = row[j];
    }
  }
}

template <class T, class A>
void turn_narrow(const A* from, int64_t from_pitch, int64_t rows, int64_t columns, T* to,
                 int64_t to_pitch, A* column) {
  if constexpr (std::is_same_v<T, A>) {
    turn(from, from_pitch, rows, columns, to, to_pitch);
  } else {
    for (int64_t j = 0; j < columns; ++j) {
      for (int64_t i = 0; i < rows; ++i) column[i] = from[i * from_pitch + j];
      store_row(column, to + j * to_pitch, rows);
    }
  }
}

}  // namespace pydl::cpu::PYDL_ISA
