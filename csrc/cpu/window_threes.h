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
inline bool whole_threes(const Axis& axis) { return by_threes(axis) && axis.whole(); }

// The same of windows two wide, which share no column, where a line of them fills a vector: of
// shorter ones several are better done at a time.
inline bool whole_twos(const Axis& axis) {
  return axis.kernel == 2 && axis.stride == 2 && axis.dilation == 1 && axis.whole() &&
         axis.outputs >= 8;
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
            store_finished<lanes, A>(folded, of_line, o, to);
          });
        }
      });
    }
  });
}

}  // namespace pydl::cpu::PYDL_ISA
