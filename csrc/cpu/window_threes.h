// Windows three wide that begin at every other column, in N, C, D, H, W and float32: lines of them
// are folded in registers, down the columns first and then across three of these at a time, which
// shuffles bring together. Narrower types would be widened more than once, so those fold their
// columns into a buffer first.
#pragma once

#include "parallel.h"
#include "pool_window.h"
#include "vec.h"

namespace pydl::cpu::PYDL_ISA {

// Whether the windows are such and all lie wholly inside the input: those that do not would be
// folded one at a time, which costs more than registers save.
inline bool whole_threes(const Axis& axis) {
  const Axis::Taps whole = axis.full();
  return by_threes(axis) && whole.first == 0 && whole.last == axis.outputs;
}

// The columns of as many windows as a vector has lanes.
template <int lanes, class A>
struct Threes {
  Vec<A, lanes> first, second, third;
};

// From 2 * lanes + 1 columns: the first two vectors of them and the one that they end with, whose
// last lane is the third column of the last window.
template <int lanes, class A>
PYDL_INLINE Threes<lanes, A> threes_of(const Vec<A, lanes>& low, const Vec<A, lanes>& high,
                                       const Vec<A, lanes>& end) {
  if constexpr (lanes == 1) {
    return {low, high, end};
  } else {
    Threes<lanes, A> threes;
#if defined(__GNUC__) && !defined(__clang__)
    using I = Vec<Code<A>, lanes>;
    I firsts{}, seconds{}, thirds{};
    for (int lane = 0; lane < lanes; ++lane)
      firsts[lane] = 2 * lane, seconds[lane] = 2 * lane + 1, thirds[lane] = lane + 1;
    thirds[lanes - 1] = 2 * lanes - 1;
    threes.first = __builtin_shuffle(low, high, firsts);
    threes.second = __builtin_shuffle(low, high, seconds);
    threes.third = __builtin_shuffle(threes.first, end, thirds);
#else
    const auto column = [&](int i) { return i < lanes ? low[i] : high[i - lanes]; };
    for (int lane = 0; lane < lanes; ++lane) {
      threes.first[lane] = column(2 * lane), threes.second[lane] = column(2 * lane + 1);
      threes.third[lane] = lane + 1 < lanes ? column(2 * lane + 2) : end[lane];
    }
#endif
    return threes;
  }
}

// Columns from here on, folded down the rows.
template <int fixed, int lanes, class T, class Down>
PYDL_INLINE Vec<accumulate_t<T>, lanes> fold_down(const T* const* rows, int64_t count,
                                                  int64_t offset, Down down) {
  Vec<accumulate_t<T>, lanes> folded = down.first(load_vec<lanes>(rows[0] + offset));
  for_steps<fixed>(1, count, [&](int64_t row) PYDL_INLINE_BODY {
    folded = down(folded, load_vec<lanes>(rows[row] + offset));
  });
  return folded;
}

// A fold of a map's windows: y[o] = finish(across columns(down their taps)). Down and Across are
// folds for fold_rows, `none` is what it is of windows that have no tap inside the input, and
// finish.of_line(d, h)(folded, o) finishes the windows of a line.
template <class T, class Down, class Across, class Finish>
void fold_lines_of_threes(const Tensor& x_map, const Tensor& y_map, const Axis& depth,
                          const Axis& height, const Axis& width, Down down, Across across,
                          accumulate_t<T> none, const Finish& finish, int64_t threads) {
  using A = accumulate_t<T>;
  const Lines lines(y_map);
  const Axis::Taps full = height.full();
  const int64_t step = height.stride * width.inputs;
  const T* x = static_cast<const T*>(x_map.data);
  T* y = static_cast<T*>(y_map.data);
  const int64_t team = team_size(lines.count(), x_map.numel(), threads);
  const Scratch<const T*> memory(team, depth.kernel * height.kernel);
  share_out(lines.count(), team, [&](int64_t member, int64_t first, int64_t last) {
    const T** rows = memory.of(member);
    Lines at = lines.from(first);
    while (at.number < last) {
      const int64_t alike = lines_alike(full, at, last - at.number);
      const auto of_line = finish.of_line(at.d, at.h);
      T* out = y + at.number * width.outputs;
      int64_t count = 0;
      for_lines_of_windows(depth, height, at, [&](int64_t from, int64_t, int64_t) {
        rows[count++] = x + from * width.inputs;
      });
      at.advance(alike);
      if (count == 0) {
        for (int64_t o = 0; o < alike * width.outputs; ++o)
          out[o] = static_cast<T>(of_line(none, o % width.outputs));
        continue;
      }
      with_count<A, 2, 3>(count, [&]<int fixed>(Lanes<fixed>) {
        for (int64_t line = 0; line < alike; ++line) {
          T* to = out + line * width.outputs;
          for_blocks<A>(width.outputs, [=]<int lanes>(int64_t o, Lanes<lanes>) PYDL_INLINE_BODY {
            const int64_t column = line * step + 2 * o;
            const auto [a, b, c] =
                threes_of<lanes, A>(fold_down<fixed, lanes>(rows, count, column, down),
                                    fold_down<fixed, lanes>(rows, count, column + lanes, down),
                                    fold_down<fixed, lanes>(rows, count, column + lanes + 1, down));
            const Vec<A, lanes> folded = across(across(a, b), c);
            A finished[lanes];
            std::memcpy(finished, &folded, sizeof(folded));
            PYDL_LANES
            for (int lane = 0; lane < lanes; ++lane)
              finished[lane] = of_line(finished[lane], o + lane);
            store<lanes>(finished, to + o);
          });
        }
      });
    }
  });
}

}  // namespace pydl::cpu::PYDL_ISA
